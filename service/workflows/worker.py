"""Make workflows begin and continue: the job that executes one, and the pass that finds those that are due.

A job of the task queue executes a workflow to its end or its next wait, on any replica. The table of runs is
where workflows wait, for however long; the queue holds those that may begin soon.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final

from core.postgres import Connection
from core.settings import WorkflowSettings
from core.tasks import Backoff
from service.queue import Retry, TaskQueue
from service.workflows.execution import WorkflowExecutor
from workflows.store import Run, WorkflowStore

ADVANCE_WORKFLOW: Final = "advance-workflow"
# So many new workflows of a tenant get a job at once. The others wait in the table, where they cost nothing.
MAX_QUEUED: Final = 100
# Workflows that one pass looks at.
_BATCH: Final = 500
# A job that found the database unavailable is tried again.
_RETRY: Final = Retry(backoff=Backoff(first=1, longest=60))
POLL_SECONDS: Final = 1.0


class WorkflowWorker:
    """Executes workflows as jobs.

    Args:
        store: The table of runs.
        executor: Executes them.
        queue: The task queue.
    """

    def __init__(self, store: WorkflowStore, executor: WorkflowExecutor, queue: TaskQueue) -> None:
        self._store = store
        self._executor = executor
        self._queue = queue
        self._changes: dict[str, asyncio.Event] = {}

    def schedule(self, settings: WorkflowSettings) -> None:
        """Register the job and the pass.

        A workflow may execute for long, so that its jobs do not share places with others. There are twice as
        many places as concurrency slots: a tenant with its share of the slots holds up nobody while its next
        jobs wait for one.
        """
        self._queue.register(
            ADVANCE_WORKFLOW, self._advance, retry=_RETRY, concurrency=2 * settings.max_concurrent
        )
        self._queue.every("wake-workflows", self.defer_due, seconds=settings.sweep_seconds)

    async def defer(self, run_id: str, *, turn: int = 0, connection: Connection | None = None) -> None:
        """Give a run a job, unless one waits already.

        Args:
            run_id: The run.
            turn: The lowest is first. 0: it goes before those that have not begun.
            connection: The run gets the job when the connection's transaction commits.
        """
        await self._queue.defer(
            ADVANCE_WORKFLOW,
            lock=run_id,
            queueing_lock=run_id,
            priority=-turn,
            connection=connection,
            run_id=run_id,
        )

    async def defer_due(self) -> None:
        """Give jobs to the runs that are due and have none."""
        turns = await self._store.list_due(limit=_BATCH)
        if missing := await self._queue.list_missing(ADVANCE_WORKFLOW, turns):
            # One commit for all of them.
            async with self._store.pool.connection() as connection, connection.transaction():
                for run_id in missing:
                    await self.defer(run_id, turn=turns[run_id], connection=connection)

    async def wait_until_settled(self, tenant: str, run_id: str, *, seconds: float) -> Run | None:
        """Return a run when it has ended or waits, or as it is when the seconds are over."""
        deadline = time.monotonic() + seconds
        while True:
            # Set when the run stops here; another replica may execute it.
            change = self._changes.setdefault(run_id, asyncio.Event())
            run = await self._store.get(tenant, run_id)
            left = deadline - time.monotonic()
            if run is None or run.is_final or run.status == "waiting" or left <= 0:
                self._changes.pop(run_id, None)
                return run
            with suppress(TimeoutError):
                async with asyncio.timeout(min(POLL_SECONDS, left)):
                    await change.wait()

    async def _advance(self, run_id: str) -> None:
        """Execute a run to its end or its next wait: the job, which may run twice and be cut off."""
        run = await self._store.load(run_id)
        if run is None or run.is_final:
            return
        try:
            await self._executor.advance(run)
        finally:
            if change := self._changes.pop(run_id, None):
                change.set()
