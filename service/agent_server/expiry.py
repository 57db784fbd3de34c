"""Erase what is over: threads after their time to live, those of stateless runs, and items."""

from typing import Final

from core.context import Actor, act_as
from core.errors import NotFound, ServiceError, ThreadBusy
from core.logging import get_logger
from core.postgres import Pool
from core.tasks import Backoff
from service.agent_server.assistants import QUERIES
from service.agent_server.items import ItemStore
from service.agent_server.threads import ThreadStore
from service.auth.principal import Identity, build_actor
from service.erasure import Erasure
from service.queue import Retry, TaskQueue
from service.runs.executor import RunExecutor
from service.runs.request import RunRequest

log = get_logger(__name__)

ERASE_THREAD: Final = "erase-thread"
SWEEP_SECONDS: Final = 300.0
_BATCH: Final = 1_000
_RETRY: Final = Retry(backoff=Backoff(first=1, longest=60), attempts=10)


class Expiry:
    """Erases threads and items whose time is over.

    Args:
        pool: The service's pool.
        queue: Runs the jobs.
        runs: Holds threads while they are erased.
        erasure: Erases threads.
        threads: Shortens their history.
        items: The store.
    """

    def __init__(
        self,
        pool: Pool,
        queue: TaskQueue,
        runs: RunExecutor,
        erasure: Erasure,
        *,
        threads: ThreadStore,
        items: ItemStore,
    ) -> None:
        self._pool = pool
        self._queue = queue
        self._runs = runs
        self._erasure = erasure
        self._threads = threads
        self._items = items

    def schedule(self) -> None:
        """Register the jobs."""
        self._queue.register(ERASE_THREAD, self.erase, retry=_RETRY)
        self._queue.every("expired-threads", self.sweep, seconds=SWEEP_SECONDS)
        self._queue.every("expired-items", self._items.delete_expired, seconds=SWEEP_SECONDS)

    async def defer_erasure(self, request: RunRequest) -> None:
        """Have the thread of a run that has ended erased."""
        await self._queue.defer(
            ERASE_THREAD,
            queueing_lock=request.thread_id,
            thread_id=request.thread_id,
            tenant=request.identity.tenant,
        )

    async def erase(self, thread_id: str, tenant: str) -> None:
        """Erase a thread, if there is one.

        Raises:
            ThreadBusy: A run is in progress on it: try again.
        """
        identity = Identity(tenant=tenant, user="expiry")
        try:
            async with self._runs.hold_idle_thread(identity, thread_id) as hold:
                act_as(build_actor(identity, thread_id=thread_id, run_id=hold))
                await self._erasure.erase(thread_id, tenant=tenant)
        except NotFound:
            return

    async def sweep(self) -> None:
        """Erase the threads whose time is over, or their history, as they say."""
        act_as(Actor(user="expiry"))
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(QUERIES["list_expired_threads"], {"limit": _BATCH})
            ).fetchall()
        for row in rows:
            try:
                if row["strategy"] == "keep_latest":
                    await self._shorten(row["tenant"], row["id"])
                else:
                    await self.erase(row["id"], row["tenant"])
            except ThreadBusy:
                continue
            except ServiceError as error:
                log.warning("thread_not_expired", thread_id=row["id"], reason=error.message)

    async def _shorten(self, tenant: str, thread_id: str) -> None:
        identity = Identity(tenant=tenant, user="expiry")
        async with self._runs.hold_idle_thread(identity, thread_id):
            await self._threads.prune(thread_id)
            async with self._pool.connection() as connection:
                await connection.execute(QUERIES["touch_thread"], {"id": thread_id})
