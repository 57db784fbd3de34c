"""Results in an unlogged table of the one Postgres, for replicas that have no Redis."""

import asyncio
import random
from collections.abc import Mapping, Sequence

import psycopg

from core.logging import get_logger
from core.postgres import Pool

READ_SQL = "SELECT key, value FROM result_cache WHERE key = ANY(%s) AND expires_at > now()"
# One row and one key in most calls; two callers with the same keys in another order must not wait in a ring.
WRITE_SQL = """
INSERT INTO result_cache (key, value, expires_at)
SELECT key, value, now() + make_interval(secs => %s)
FROM unnest(%s::text[], %s::bytea[]) AS new (key, value)
ORDER BY key
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
"""
CLEAR_SQL = "DELETE FROM result_cache WHERE starts_with(key, %s)"
# Rows that another replica sweeps are left to it.
SWEEP_SQL = """
DELETE FROM result_cache WHERE key IN (
    SELECT key FROM result_cache WHERE expires_at <= now() LIMIT %s FOR UPDATE SKIP LOCKED
)
"""
SWEPT_AT_ONCE = 10_000
SWEEP_SECONDS = 60.0

log = get_logger(__name__)


class PostgresStore:
    """The table is made by ``checkpoints.migrations``; a crash of the server empties it.

    Args:
        pool: The service's.
    """

    faults: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See :class:`~checkpoints.cache.store.Store`."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(READ_SQL, (list(keys),), binary=True)).fetchall()
        return {row["key"]: row["value"] for row in rows}

    async def write(self, values: Mapping[str, bytes], seconds: int) -> None:
        """See :class:`~checkpoints.cache.store.Store`."""
        async with self._pool.connection() as connection:
            await connection.execute(WRITE_SQL, (seconds, list(values), list(values.values())))

    async def clear(self, prefix: str) -> None:
        """See :class:`~checkpoints.cache.store.Store`."""
        async with self._pool.connection() as connection:
            await connection.execute(CLEAR_SQL, (prefix,))

    async def sweep(self) -> int:
        """Delete what has expired, and say how many rows that were.

        Raises:
            psycopg.Error: The database is away.
        """
        swept = 0
        async with self._pool.connection() as connection:
            while rows := (await connection.execute(SWEEP_SQL, (SWEPT_AT_ONCE,))).rowcount:
                swept += rows
        return swept

    async def sweep_forever(self) -> None:
        """Sweep each minute, replicas at different times; a database that is away is tried again."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            try:
                await self.sweep()
            except psycopg.Error as error:
                log.warning("cache_not_swept", reason=str(error).strip())
