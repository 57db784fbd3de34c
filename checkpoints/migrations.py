"""Append-only migrations, one replica at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from checkpoints.pool import Pool

# Any fixed number will do; it names "this product's migrations" among advisory locks.
LOCK_ID = 0x76_65_6E_74_72_6F_73

LOCK_SQL = "SELECT pg_advisory_lock(%s)"
UNLOCK_SQL = "SELECT pg_advisory_unlock(%s)"


@asynccontextmanager
async def serialised(pool: Pool) -> AsyncIterator[None]:
    """Hold the migrations' advisory lock, so that replicas that start together take turns."""
    async with pool.connection() as connection:
        await connection.execute(LOCK_SQL, (LOCK_ID,))
        try:
            yield
        finally:
            await connection.execute(UNLOCK_SQL, (LOCK_ID,))
