"""Append-only migrations of the schema ``workflows``."""

from pathlib import Path
from typing import TypeAlias

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

Pool: TypeAlias = AsyncConnectionPool[AsyncConnection[DictRow]]

# Any fixed number will do; it names "the workflows' migrations" among advisory locks.
LOCK_ID = 0x77_6F_72_6B_66_6C_6F

LOCK_SQL = "SELECT pg_advisory_xact_lock(%s)"
CREATE_SCHEMA_SQL = "CREATE SCHEMA IF NOT EXISTS workflows"
CREATE_VERSIONS_SQL = """
CREATE TABLE IF NOT EXISTS workflows.migrations (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
CURRENT_VERSION_SQL = "SELECT coalesce(max(version), 0) AS version FROM workflows.migrations"
RECORD_VERSION_SQL = "INSERT INTO workflows.migrations (version) VALUES (%s)"

# Position is version: append, never edit or reorder. Read at import, never while a request waits.
MIGRATIONS: tuple[bytes, ...] = ((Path(__file__).parent / "sql" / "0001_runs.sql").read_bytes(),)


async def migrate(pool: Pool) -> None:
    """Bring the schema ``workflows`` up to date; nothing to do is fine.

    Services that start together take turns. It is one transaction: a failure leaves the schema as it was.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(LOCK_SQL, (LOCK_ID,))
        await connection.execute(CREATE_SCHEMA_SQL)
        await connection.execute(CREATE_VERSIONS_SQL)
        current = await (await connection.execute(CURRENT_VERSION_SQL)).fetchone()
        applied = current["version"] if current else 0
        for version, statements in enumerate(MIGRATIONS[applied:], start=applied + 1):
            # A file has several statements, which a prepared statement cannot.
            await connection.execute(statements, prepare=False)
            await connection.execute(RECORD_VERSION_SQL, (version,))
