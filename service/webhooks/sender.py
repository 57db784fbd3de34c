"""Send webhooks: claim deliveries that are due, send each once, and record how it went.

A delivery is a row that holds what a job would: when it is due, its attempts, who has it. A job of the task
queue beside it would be a second copy to keep in step, and cost more than the delivery itself. Deliveries
have slots and an HTTP client of their own, so that a backlog of them delays no message.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol

import httpx

from core.errors import InvalidRequest, OutgoingRefused, OutgoingUnavailable
from core.logging import get_logger
from core.outgoing import GuardedTransport
from core.postgres import DATABASE_UNAVAILABLE, Pool
from core.settings import WebhookSettings
from core.tasks import JITTER, Backoff, Scheduler, Supervisor, cancel_and_wait, periodic
from service.outbox.catalogue import CONTENT_TYPE
from service.version import VERSION
from service.webhooks.deliveries import GONE, ClaimedDelivery, DeliveryStore, Outcome
from service.webhooks.endpoints import EndpointStore
from service.webhooks.signatures import sign

log = get_logger(__name__)

# How soon an event that nobody told this process of is found.
POLL_SECONDS: Final = 0.2
BACKOFF: Final = Backoff(first=5, longest=7_200)
# Most deliveries to one endpoint that are begun at once, by one process.
PER_ENDPOINT: Final = 8
# A claim lasts for an attempt and what recording it may take.
_RECORD_SECONDS: Final = 20.0
# A longer answer is not read, and its connection is closed.
_MAX_RESPONSE_BYTES: Final = 65_536
_UPKEEP_SECONDS: Final = 60.0
_SECONDS_PER_HOUR: Final = 3_600


class DeliveryMeter(Protocol):
    """Counts deliveries, as :class:`service.observability.metrics.ServiceMetrics` does."""

    def record_delivery(self, outcome: str, seconds: float) -> None:
        """Count an attempt: ``delivered``, ``retried`` or ``dead``, and how long it took."""
        ...

    def show_deliveries(self, waiting: int, oldest_seconds: float) -> None:
        """Show how many deliveries are due, and for how long the first of them has been."""
        ...


class WebhookSender:
    """Sends the deliveries that are due.

    Args:
        store: The deliveries.
        http: A client whose transport guards addresses.
        settings: Time limits and slots.
        meter: Counts attempts.
        guard: The client's transport, which says which addresses webhooks may have.
    """

    def __init__(
        self,
        store: DeliveryStore,
        http: httpx.AsyncClient,
        settings: WebhookSettings,
        meter: DeliveryMeter,
        guard: GuardedTransport,
    ) -> None:
        self._guard = guard
        self._store = store
        self._http = http
        self._settings = settings
        self._meter = meter
        self._sending: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def check_address(self, url: str) -> str:
        """Return an address that webhooks may have.

        Raises:
            InvalidRequest: It is no address.
            OutgoingRefused: It is at a host that the operator does not allow.
        """
        try:
            parsed = httpx.URL(url)
            has_host = bool(parsed.host)
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidRequest(f"url is no address: {error}") from error
        if not has_host or parsed.userinfo or parsed.fragment:
            raise InvalidRequest("url must be an https:// address without user, password and fragment")
        self._guard.find_host(parsed)
        return url

    async def run(self) -> None:
        """Send until cancelled; what is being sent then is sent again by another process."""
        try:
            await periodic(
                "webhooks", self.send_due, seconds=POLL_SECONDS, wake=self._wake, backoff=Backoff(1, 30)
            )
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Break off what is being sent."""
        for task in list(self._tasks):
            await cancel_and_wait(task)

    async def send_due(self) -> int:
        """Begin to send what is due, as far as slots are free; return how many were begun."""
        free = self._settings.concurrency - len(self._tasks)
        if free <= 0:
            return 0
        claimed = await self._store.claim(
            limit=free,
            per_endpoint=PER_ENDPOINT,
            busy=[endpoint for endpoint, count in self._sending.items() if self._is_busy(endpoint, count)],
            claim_seconds=self._settings.timeout_seconds + _RECORD_SECONDS,
        )
        for delivery in claimed:
            self._sending[delivery.endpoint_id] += 1
            (self._failing.add if delivery.is_failing else self._failing.discard)(delivery.endpoint_id)
            task = asyncio.create_task(self._deliver(delivery))
            self._tasks.add(task)
            task.add_done_callback(partial(self._release, delivery.endpoint_id))
        return len(claimed)

    def _is_busy(self, endpoint_id: str, count: int) -> bool:
        # Half of its slots must be free, so that an endpoint is not claimed for one by one. One that fails
        # has one slot: however many of its deliveries are due, the others go on.
        return count > PER_ENDPOINT // 2 or endpoint_id in self._failing

    def _release(self, endpoint_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._sending[endpoint_id] -= 1
        if not self._sending[endpoint_id]:
            del self._sending[endpoint_id]
            self._failing.discard(endpoint_id)
        if not task.cancelled() and (error := task.exception()):
            log.error("webhook_not_recorded", exc_info=error)
        # The next one of its thread may be due.
        self._wake.set()

    async def _deliver(self, delivery: ClaimedDelivery) -> None:
        started = time.monotonic()
        outcome = await self._attempt(delivery)
        try:
            if outcome.fault == GONE:
                await self._store.disable(delivery.endpoint_id, GONE)
                log.warning("webhook_disabled", tenant=delivery.tenant, url=delivery.url, reason=GONE)
            await self._store.finish(delivery, outcome)
        except DATABASE_UNAVAILABLE as error:
            # It is sent once more when the claim is over.
            log.warning("webhook_not_recorded", reason=str(error).strip())
        name = "retried" if outcome.status == "pending" else outcome.status
        self._meter.record_delivery(name, time.monotonic() - started)
        if outcome.fault:
            log.info(
                "webhook_not_delivered",
                outcome=name,
                tenant=delivery.tenant,
                url=delivery.url,
                event=delivery.event_id,
                attempt=delivery.attempt,
                reason=outcome.fault,
            )

    async def _attempt(self, delivery: ClaimedDelivery) -> Outcome:
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                response = await self._post(delivery)
        except (TimeoutError, httpx.TimeoutException):
            return self._retry(delivery, f"no answer in {self._settings.timeout_seconds:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OutgoingUnavailable) as error:
            return self._retry(delivery, f"it cannot be reached ({type(error).__name__})")
        except OutgoingRefused as error:
            return self._retry(delivery, f"{error.message} (WEBHOOK_ALLOWED_HOSTS)")
        if response.is_success:
            return Outcome(status="delivered", http_status=response.status_code)
        if response.status_code == HTTPStatus.GONE:
            return Outcome(status="pending", http_status=response.status_code, fault=GONE)
        return self._retry(
            delivery,
            f"it answered {response.status_code}",
            http_status=response.status_code,
            retry_after=response.headers.get("retry-after", ""),
        )

    async def _post(self, delivery: ClaimedDelivery) -> httpx.Response:
        signature = sign(
            delivery.body, webhook_id=delivery.event_id, timestamp=int(time.time()), keys=delivery.keys
        )
        headers = {
            **signature,
            "Content-Type": CONTENT_TYPE,
            "User-Agent": f"ventros-agents/{VERSION}",
            "Accept-Encoding": "identity",
        }
        async with self._http.stream(
            "POST", delivery.url, content=delivery.body, headers=headers, follow_redirects=False
        ) as response:
            # A response that was read leaves its connection to the next request.
            size = 0
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > _MAX_RESPONSE_BYTES:
                    break
        return response

    def _retry(
        self,
        delivery: ClaimedDelivery,
        fault: str,
        *,
        http_status: int | None = None,
        retry_after: str = "",
    ) -> Outcome:
        if delivery.age > self._settings.retry_hours * _SECONDS_PER_HOUR:
            return Outcome(status="dead", http_status=http_status, fault=fault)
        pause = BACKOFF.pause(delivery.attempt) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        asked = float(retry_after) if retry_after.isdecimal() else 0.0
        pause = max(pause, min(asked, BACKOFF.longest))
        return Outcome(status="pending", pause=pause, http_status=http_status, fault=fault)

    async def upkeep(self) -> None:
        """Disable endpoints that fail for too long, begin what was forgotten, and show what waits."""
        for row in await self._store.disable_failing(hours=self._settings.disable_hours):
            log.warning("webhook_disabled", tenant=row["tenant"], url=row["url"], reason="it keeps failing")
        await self._store.resume_all()
        self._meter.show_deliveries(*await self._store.measure())


async def register_run_webhook(sender: WebhookSender, endpoints: EndpointStore, tenant: str, url: str) -> str:
    """Return the endpoint that is told of the end of a run that names an address.

    Raises:
        InvalidRequest: It is no address.
        OutgoingRefused: It is at a host that the operator does not allow.
    """
    return await endpoints.ensure_for_runs(tenant, sender.check_address(url))


@asynccontextmanager
async def send_webhooks(
    tasks: Supervisor,
    scheduler: Scheduler,
    pool: Pool,
    *,
    settings: WebhookSettings,
    meter: DeliveryMeter,
    is_working: bool,
) -> AsyncIterator[WebhookSender]:
    """Send webhooks while the context is open.

    Args:
        tasks: Supervises the sender.
        scheduler: Repeats the upkeep.
        pool: The service's pool.
        settings: Hosts, slots and time limits.
        meter: Counts attempts.
        is_working: Whether this process sends; another one may.
    """
    guard = GuardedTransport(settings.hosts, allows_any=settings.allows_any)
    timeout = httpx.Timeout(settings.timeout_seconds)
    async with httpx.AsyncClient(transport=guard, trust_env=False, timeout=timeout) as http:
        sender = WebhookSender(DeliveryStore(pool), http, settings, meter, guard)
        scheduler.every("webhook-upkeep", sender.upkeep, seconds=_UPKEEP_SECONDS)
        if not is_working:
            yield sender
            return
        async with tasks.supervise("webhooks", sender.run):
            yield sender
