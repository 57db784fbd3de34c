"""Deliveries of events to endpoints: claim those that are due, record how they went, list and repeat them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import orjson

from core.errors import NotFound
from core.postgres import Pool
from service.outbox.catalogue import build_envelope
from service.webhooks.endpoints import QUERIES

DeliveryStatus: TypeAlias = Literal["pending", "delivered", "dead"]

GONE: Final = "it answered 410 Gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event on its way to an endpoint, as its tenant sees it.

    Attributes:
        id: Its id.
        position: Later ones have a higher one.
        event_id: The event, which is the ``webhook-id``.
        type: The event's type.
        thread_id: Its thread; empty: none.
        created_at: When the event became true.
        status: ``pending``, ``delivered`` or ``dead``: given up.
        attempts: How often it was tried.
        due_at: When it is tried next; ``None``: it waits for an earlier one of its thread, or has ended.
        ended_at: When it was delivered or given up.
        response_status: The HTTP status of the last attempt; ``None``: there was no answer.
        error: What went wrong in the last attempt; empty: nothing.
    """

    id: str
    position: int
    event_id: str
    type: str
    thread_id: str
    created_at: datetime
    status: DeliveryStatus
    attempts: int
    due_at: datetime | None
    ended_at: datetime | None
    response_status: int | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that this process attempts now.

    Attributes:
        id: Its id.
        attempt: The number of the attempt, which fences off others.
        age: Seconds for which it has been tried.
        endpoint_id: The endpoint.
        is_failing: Whether its last attempt has failed.
        url: Its address.
        keys: What signs: the endpoint's secret and, shortly after a rotation, the one before.
        event_id: The event.
        type: Its type.
        tenant: Whose it is.
        body: The event in its envelope, as JSON.
    """

    id: str
    attempt: int
    age: float
    endpoint_id: str
    is_failing: bool
    url: str
    keys: tuple[str, ...]
    event_id: str
    type: str
    tenant: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt went.

    Attributes:
        status: ``pending``: it is tried again.
        pause: Seconds until then.
        http_status: Of the response; ``None``: there was none.
        fault: What went wrong; empty: nothing.
    """

    status: DeliveryStatus
    pause: float | None = None
    http_status: int | None = None
    fault: str = ""


class DeliveryStore:
    """Deliveries in the service's Postgres.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(
        self, *, limit: int, per_endpoint: int, busy: Collection[str], claim_seconds: float
    ) -> list[ClaimedDelivery]:
        """Claim deliveries that are due.

        Args:
            limit: Most in all.
            per_endpoint: Most of one endpoint; of one that fails there is one.
            busy: Endpoints that get none.
            claim_seconds: When another process may make the next attempt.
        """
        values = {
            "limit": limit,
            "per_endpoint": per_endpoint,
            "busy": list(busy),
            "claim_seconds": claim_seconds,
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(QUERIES["claim"], values)).fetchall()
        return [
            ClaimedDelivery(
                id=str(row["delivery_id"]),
                attempt=row["attempts"],
                age=row["age"],
                endpoint_id=str(row["endpoint_id"]),
                is_failing=row["is_failing"],
                url=row["url"],
                keys=tuple(key for key in (row["secret"], row["previous_secret"]) if key),
                event_id=str(row["id"]),
                type=row["type"],
                tenant=row["tenant"],
                body=orjson.dumps(build_envelope(row)),
            )
            for row in rows
        ]

    async def finish(self, delivery: ClaimedDelivery, outcome: Outcome) -> bool:
        """Record an attempt; return whether it is still this process's."""
        values = {
            "id": delivery.id,
            "attempt": delivery.attempt,
            "outcome": outcome.status,
            "pause": outcome.pause,
            "http_status": outcome.http_status,
            "fault": outcome.fault,
        }
        async with self._pool.connection() as connection:
            row = await (await connection.execute(QUERIES["finish"], values)).fetchone()
        return bool(row and row["is_recorded"])

    async def disable(self, endpoint_id: str, reason: str) -> None:
        """Disable an endpoint; what was due waits."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(QUERIES["disable"], {"id": endpoint_id, "reason": reason})
            await connection.execute(QUERIES["suspend"], {"id": endpoint_id})

    async def disable_failing(self, *, hours: float) -> list[dict[str, Any]]:
        """Disable the endpoints at which nothing has succeeded for so long.

        Returns:
            ``id``, ``tenant`` and ``url`` of each.
        """
        reason = f"nothing was delivered for {hours:g} h (WEBHOOK_DISABLE_HOURS)"
        async with self._pool.connection() as connection, connection.transaction():
            values = {"hours": hours, "reason": reason}
            rows = await (await connection.execute(QUERIES["disable_failing"], values)).fetchall()
            for row in rows:
                await connection.execute(QUERIES["suspend"], {"id": row["id"]})
        return rows

    async def resume_all(self) -> int:
        """Begin deliveries that were left without a time, and return their number."""
        async with self._pool.connection() as connection:
            return (await connection.execute(QUERIES["resume"], {"id": None})).rowcount

    async def measure(self) -> tuple[int, float]:
        """Return how many deliveries are due, and for how many seconds the first of them has been."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(QUERIES["measure"])).fetchone()
        return (row["waiting"], row["oldest_seconds"]) if row else (0, 0.0)

    async def list(
        self,
        tenant: str,
        endpoint_id: str,
        *,
        status: DeliveryStatus | None,
        before: int | None,
        limit: int,
    ) -> Sequence[Delivery]:
        """Return deliveries to an endpoint, the latest first."""
        values = {
            "tenant": tenant,
            "endpoint": endpoint_id,
            "status": status,
            "before": before,
            "limit": limit,
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(QUERIES["list_deliveries"], values)).fetchall()
        return [Delivery(**{**row, "id": str(row["id"]), "event_id": str(row["event_id"])}) for row in rows]

    async def redeliver(self, tenant: str, endpoint_id: str, delivery_id: str | None = None) -> int:
        """Send a delivery that has ended once more, or all that were given up; return how many there were.

        Raises:
            NotFound: The endpoint has no delivery with this id that has ended.
        """
        values = {"tenant": tenant, "endpoint": endpoint_id, "id": delivery_id}
        async with self._pool.connection() as connection, connection.transaction():
            count = (await connection.execute(QUERIES["redeliver"], values)).rowcount
            if delivery_id and not count:
                raise NotFound(
                    f"there is no delivery {delivery_id!r} that has ended", details={"id": delivery_id}
                )
            await connection.execute(QUERIES["resume"], {"id": endpoint_id})
        return count
