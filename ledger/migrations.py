"""Append-only migrations of the schema ``ledger``."""

from pathlib import Path
from typing import TypeAlias

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

Pool: TypeAlias = AsyncConnectionPool[AsyncConnection[DictRow]]

# Any fixed number will do; it names "the ledger's migrations" among advisory locks.
LOCK_ID = 0x6C_65_64_67_65_72

LOCK_SQL = "SELECT pg_advisory_xact_lock(%s)"
CREATE_SCHEMA_SQL = "CREATE SCHEMA IF NOT EXISTS ledger"
CREATE_VERSIONS_SQL = """
CREATE TABLE IF NOT EXISTS ledger.migrations (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
CURRENT_VERSION_SQL = "SELECT coalesce(max(version), 0) AS version FROM ledger.migrations"
RECORD_VERSION_SQL = "INSERT INTO ledger.migrations (version) VALUES (%s)"

# Position is version: append, never edit or reorder. Read at import, never while a request waits.
MIGRATIONS: tuple[bytes, ...] = ((Path(__file__).parent / "sql" / "0001_ledger.sql").read_bytes(),)


async def migrate(pool: Pool) -> None:
    """Bring the schema ``ledger`` up to date; nothing to do is fine.

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
