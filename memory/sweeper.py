"""The background sweeper: removes notes whose time is over, and trims what a lowered setting left too many.

Writers keep the capacity themselves and readers see nothing that is over, so a sweep that fails, or is late,
costs space alone. One service sweeps at a time; the others find the lock taken and let it be.
"""

import asyncio
import contextlib
import random
from datetime import UTC, datetime
from typing import Final

from core.errors import MemoryUnavailable
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Connection, Pool
from memory.database import translate_errors
from memory.notes import TRIM_SQL, NotePolicies

log = get_logger(__name__)

# Names "the sweeper of notes" among advisory locks.
LOCK_ID: Final = 0x73_77_65_65_70
BATCH: Final = 500
BATCH_SCOPES: Final = 20
_JITTER: Final = 0.2

TRY_LOCK_SQL: Final = "SELECT pg_try_advisory_xact_lock(%s) AS ours"
EXPIRED_SQL: Final = """
DELETE FROM memory.items WHERE id IN (
    SELECT id FROM memory.items WHERE type = %s AND remembered_at <= %s
    ORDER BY remembered_at LIMIT %s FOR UPDATE SKIP LOCKED
)
"""
OVERFULL_SQL: Final = """
SELECT scope, type FROM memory.items GROUP BY scope, type HAVING count(*) > %s
ORDER BY scope, type LIMIT %s
"""
# Trimming takes the scope's lock first, as those who write notes do.
LOCK_SCOPE_SQL: Final = "SELECT FROM memory.scopes WHERE id = %s FOR NO KEY UPDATE"


class Sweeper:
    """Sweeps in one task.

    Args:
        pool: The service's pool.
        policies: How long notes are kept, and how many.
        seconds: Between two sweeps, give or take a fifth, so that services do not keep in step.
    """

    def __init__(self, pool: Pool, policies: NotePolicies, *, seconds: float) -> None:
        self._pool = pool
        self._policies = policies
        self._seconds = seconds
        self._closed = False

    async def aclose(self, task: asyncio.Task[None]) -> None:
        """End the task that runs :meth:`run`; a batch that is not done is undone."""
        # The pool can take a cancellation for a fault of its own: then the flag ends the loop.
        self._closed = True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def run(self) -> None:
        """Sweep until closed; a fault of the database is logged, and the next sweep tries again."""
        while not self._closed:
            await asyncio.sleep(self._seconds * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
            try:
                removed = await self.sweep()
            except (MemoryUnavailable, *DATABASE_UNAVAILABLE) as fault:
                if not self._closed:
                    log.warning("memory_sweep_failed", reason=str(fault))
                continue
            if removed:
                log.info("memory_swept", removed=removed)

    async def sweep(self, now: datetime | None = None) -> int:
        """Remove what is over now, in small transactions.

        Args:
            now: The time; None: the clock's.

        Returns:
            How many notes were removed; 0 where another service sweeps.

        Raises:
            MemoryUnavailable: The database cannot be reached.
        """
        removed = 0
        with translate_errors():
            while batch := await self._batch(now or datetime.now(UTC)):
                removed += batch
        return removed

    async def _batch(self, now: datetime) -> int:
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(TRY_LOCK_SQL, (LOCK_ID,))).fetchone()
            if not row or not row["ours"]:
                return 0
            return await self._expired(connection, now) or await self._overfull(connection, now)

    async def _expired(self, connection: Connection, now: datetime) -> int:
        removed = 0
        for kind, kept in self._policies.retention.items():
            if removed < BATCH:
                parameters = (kind, now - kept, BATCH - removed)
                removed += (await connection.execute(EXPIRED_SQL, parameters)).rowcount
        return removed

    async def _overfull(self, connection: Connection, now: datetime) -> int:
        parameters = (self._policies.capacity, BATCH_SCOPES)
        removed = 0
        for row in await (await connection.execute(OVERFULL_SQL, parameters)).fetchall():
            await connection.execute(LOCK_SCOPE_SQL, (row["scope"],))
            oldest = now - self._policies.retention[row["type"]]
            trim = {**row, "oldest": oldest, "kept": self._policies.kept}
            removed += (await connection.execute(TRIM_SQL, trim)).rowcount
        return removed
