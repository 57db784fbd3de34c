"""What each process does for the queue of all: requeue the jobs of dead workers, and measure it."""

import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from procrastinate.sql import queries
from psycopg.errors import RaiseException, UniqueViolation
from psycopg.rows import DictRow

from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Connection, Pool, read_queries
from service.queue.schema import ANALYZE_SQL

log = get_logger(__name__)

QUERIES: Final = read_queries(Path(__file__).parent / "queue.sql")


class QueueMeter(Protocol):
    """Counts jobs, as :class:`service.observability.metrics.ServiceMetrics` does."""

    def record_job(self, task: str, outcome: str, seconds: float) -> None:
        """Count an attempt at a job: ``succeeded``, ``failed`` or ``cut_off``."""
        ...

    def show_queue(self, task: str, *, waiting: int, oldest_seconds: float, failed: int) -> None:
        """Show how many jobs of a task wait, for how long the oldest does, and how many have failed."""
        ...


class Upkeep:
    """Requeues stalled jobs, and measures the queue.

    No job does this: the worker that runs it may be the one that dies, and all workers may be busy.

    Args:
        pool: The service's pool.
        meter: Shows the measurements.
        names: Of the tasks; those registered later count too.
        stalled_seconds: After so long without a heartbeat, a worker is taken for dead.
    """

    def __init__(
        self, pool: Pool, meter: QueueMeter, names: Collection[str], *, stalled_seconds: float
    ) -> None:
        self._pool = pool
        self._meter = meter
        self._names = names
        self._stalled_seconds = stalled_seconds
        # Until then a silent worker may be alive: nobody could reach the database.
        self._trust_heartbeats_at = 0.0

    async def run_pass(self) -> None:
        """Requeue stalled jobs, measure the queue and keep its statistics recent.

        Raises:
            psycopg.Error, PoolTimeout: The database is unavailable.
        """
        try:
            await self.requeue_stalled()
            await self._refresh_statistics()
            await self._show_queue()
        except DATABASE_UNAVAILABLE:
            self._trust_heartbeats_at = time.monotonic() + self._stalled_seconds
            raise

    async def requeue_stalled(self) -> int:
        """Return to the queue the jobs of workers that died or were silent for too long.

        Returns:
            How many there were; 0 where another replica is doing it, or shortly after an outage.
        """
        if time.monotonic() < self._trust_heartbeats_at:
            return 0
        silent = {"seconds_since_heartbeat": self._stalled_seconds}
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(QUERIES["try_lock"])).fetchone()
            if not (row and row["is_held"]):
                return 0
            every = {"queue": None, "task_name": None}
            stalled = await connection.execute(
                queries["select_stalled_jobs_by_heartbeat"], {**silent, **every}
            )
            requeued = [await self._requeue(connection, job) for job in await stalled.fetchall()]
            await connection.execute(queries["prune_stalled_workers"], silent)
        return sum(requeued)

    async def _requeue(self, connection: Connection, job: DictRow) -> bool:
        unchanged = {"new_priority": None, "new_queue_name": None, "new_lock": None}
        try:
            async with connection.transaction():
                await connection.execute(
                    queries["retry_job"],
                    {"job_id": job["id"], "retry_at": datetime.now(UTC), **unchanged},
                )
        except UniqueViolation:
            # One with its queueing lock waits already and takes its place.
            await connection.execute(
                queries["finish_job"], {"job_id": job["id"], "status": "failed", "delete_job": True}
            )
        except RaiseException:
            # It has ended meanwhile.
            return False
        log.warning("job_requeued", task=job["task_name"], job_id=job["id"], attempts=job["attempts"] + 1)
        return True

    async def _refresh_statistics(self) -> None:
        """Have the planner know of a burst of jobs sooner than autovacuum would tell it."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(QUERIES["is_changed"])).fetchone()
            if row and row["is_changed"]:
                await connection.execute(ANALYZE_SQL)

    async def _show_queue(self) -> None:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(QUERIES["measure"])).fetchall()
        found = {row["task"]: row for row in rows}
        for name in {*self._names, *found}:
            row = found.get(name, {"waiting": 0, "oldest_seconds": None, "failed": 0})
            self._meter.show_queue(
                name,
                waiting=row["waiting"],
                oldest_seconds=max(0.0, float(row["oldest_seconds"] or 0)),
                failed=row["failed"],
            )
