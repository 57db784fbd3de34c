"""Take runs that no caller waits for from the table of runs, and execute them on this replica.

A pending run that nobody holds is its own place in the queue. With one statement, a replica reserves as many
as it has room for, and tenants take turns.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Final

from core.errors import ServiceError
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from service.runs.notifications import Notifications
from service.runs.rows import RunRow
from service.runs.store import READY, RunStore

log = get_logger(__name__)

# How long a run waits if the notification of it was lost.
POLL_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1.0


class RunDispatcher:
    """Executes pending runs that no caller waits for, so many at once.

    Args:
        store: The table of runs.
        execute: Executes a run that this replica holds.
        is_stopping: Returns whether this replica begins no more runs.
        concurrency: Most runs at once.
        places: Runs of one tenant that may execute at once over all replicas; ``None``: any number.
    """

    def __init__(
        self,
        store: RunStore,
        execute: Callable[[RunRow], Awaitable[None]],
        *,
        is_stopping: Callable[[], bool],
        concurrency: int,
        places: int | None,
    ) -> None:
        self._store = store
        self._execute = execute
        self._is_stopping = is_stopping
        self._concurrency = concurrency
        self._places = places
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def listen(self, notifications: Notifications) -> None:
        """Hear when a run becomes ready."""

        async def look(_: str) -> None:
            self._changed.set()

        notifications.on(READY, look)

    async def run(self) -> None:
        """Execute runs until the replica stops, through outages of the database."""
        try:
            while not self._is_stopping():
                self._changed.clear()
                try:
                    is_busy = await self._begin_ready()
                except DATABASE_UNAVAILABLE as error:
                    log.warning("pending_runs_not_read", reason=str(error).strip())
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                with suppress(TimeoutError):
                    # With all places taken, the end of a run is what to wait for.
                    async with asyncio.timeout(None if is_busy else POLL_SECONDS):
                        await self._changed.wait()
        finally:
            # They end early, as the executor drains.
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _begin_ready(self) -> bool:
        """Begin the runs that are ready, and return whether all places are taken."""
        free = self._concurrency - len(self._tasks)
        for row in await self._store.reserve(limit=free, places=self._places) if free else ():
            # An empty context: a run has nothing of the one that was begun before it.
            task = asyncio.create_task(self._execute_reserved(row), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._forget)
        return len(self._tasks) == self._concurrency

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()

    async def _execute_reserved(self, row: RunRow) -> None:
        """Execute a run; how it ended is in its row, and nobody else asks."""
        try:
            await self._execute(row)
        except ServiceError as error:
            log.info("queued_run_ended_early", run_id=row.id, error=error.code, reason=error.message)
        except Exception:
            log.exception("queued_run_failed", run_id=row.id)
        else:
            return
        if self._is_stopping():
            # One that was not begun is any replica's again. One that cannot be begun is tried again when the
            # claim has expired.
            with suppress(*DATABASE_UNAVAILABLE):
                await self._store.return_reserved(row.id)
