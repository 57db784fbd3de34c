"""Our own append-only migrations of the checkpoint tables, one replica at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from checkpoints.pool import connect
from core.postgres import Connection, Pool

# Any fixed number will do; it names "this product's migrations" among advisory locks.
LOCK_ID = 0x76_65_6E_74_72_6F_73

# Of the transaction, not of the session: a pooler may give each statement another session.
# Tried and not waited for: a statement that waits has a snapshot, for which the saver's own CREATE INDEX
# CONCURRENTLY would wait in turn, under the lock.
LOCK_SQL = f"SELECT pg_try_advisory_xact_lock({LOCK_ID}) AS held".encode()
SECONDS_BETWEEN_TRIES = 0.1

VERSIONS_SQL = "CREATE TABLE IF NOT EXISTS ventros_migrations (version integer PRIMARY KEY)"
VERSION_SQL = "SELECT coalesce(max(version), 0) AS version FROM ventros_migrations"
APPLIED_SQL = "INSERT INTO ventros_migrations (version) VALUES (%s)"

CHECKPOINT_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
# Rows are written once and, by retention, deleted in batches. By default a table is cleaned when a fifth of
# it is dead and analysed when a tenth is new: on a large one that is too late for the planner.
AUTOVACUUM = (
    "autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1, "
    "autovacuum_analyze_scale_factor = 0.02"
)

# Position is version: append, never change. They run after the saver's own.
MIGRATIONS = (
    # Pending questions are found without reading every write of every thread.
    """
    CREATE INDEX IF NOT EXISTS checkpoint_writes_interrupts
    ON checkpoint_writes (thread_id, checkpoint_id)
    WHERE checkpoint_ns = '' AND channel = '__interrupt__'
    """,
    # Position 2 to 4.
    *(f"ALTER TABLE {table} SET ({AUTOVACUUM})" for table in CHECKPOINT_TABLES),
)


@asynccontextmanager
async def serialised(pool: Pool) -> AsyncIterator[None]:
    """Hold the migrations' advisory lock, so that replicas that start together take turns.

    On a connection beside the pool, which may be no larger than what the migrations need.
    """
    async with await connect(pool) as connection, connection.transaction():
        while not await _is_held(connection):  # noqa: ASYNC110 - it is held in another process
            await asyncio.sleep(SECONDS_BETWEEN_TRIES)
        yield


async def _is_held(connection: Connection) -> bool:
    # Neither prepared nor with parameters: its portal would keep a snapshot.
    row = await (await connection.execute(LOCK_SQL, prepare=False)).fetchone()
    return bool(row and row["held"])


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
