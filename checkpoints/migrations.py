"""Our own append-only migrations of the checkpoint tables, one replica at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from checkpoints.pool import Pool

# Any fixed number will do; it names "this product's migrations" among advisory locks.
LOCK_ID = 0x76_65_6E_74_72_6F_73

LOCK_SQL = "SELECT pg_advisory_lock(%s)"
UNLOCK_SQL = "SELECT pg_advisory_unlock(%s)"

VERSIONS_SQL = "CREATE TABLE IF NOT EXISTS ventros_migrations (version integer PRIMARY KEY)"
VERSION_SQL = "SELECT coalesce(max(version), 0) AS version FROM ventros_migrations"
APPLIED_SQL = "INSERT INTO ventros_migrations (version) VALUES (%s)"

# Position is version: append, never change. They run after the saver's own.
MIGRATIONS = (
    # Pending questions are found without reading every write of every thread.
    """
    CREATE INDEX IF NOT EXISTS checkpoint_writes_interrupts
    ON checkpoint_writes (thread_id, checkpoint_id)
    WHERE checkpoint_ns = '' AND channel = '__interrupt__'
    """,
)


@asynccontextmanager
async def serialised(pool: Pool) -> AsyncIterator[None]:
    """Hold the migrations' advisory lock, so that replicas that start together take turns."""
    async with pool.connection() as connection:
        await connection.execute(LOCK_SQL, (LOCK_ID,))
        try:
            yield
        finally:
            await connection.execute(UNLOCK_SQL, (LOCK_ID,))


async def migrate(pool: Pool) -> None:
    """Apply what is missing, each with its version in one transaction."""
    async with pool.connection() as connection:
        await connection.execute(VERSIONS_SQL)
        row = await (await connection.execute(VERSION_SQL)).fetchone()
        applied = row["version"] if row else 0
        for version, statement in enumerate(MIGRATIONS[applied:], start=applied + 1):
            async with connection.transaction():
                await connection.execute(statement)
                await connection.execute(APPLIED_SQL, (version,))
