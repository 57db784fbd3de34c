"""Append-only migrations of the schema ``crm``."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from crm.database import Connection, Pool
from crm.seeding import SALES, SUPPORT, seeds

# Any fixed number will do; it names "the development CRM's migrations" among advisory locks.
LOCK_ID = 0x64_65_76_2D_63_72_6D

LOCK_SQL = "SELECT pg_advisory_xact_lock(%s)"
CREATE_SCHEMA_SQL = "CREATE SCHEMA IF NOT EXISTS crm"
CREATE_VERSIONS_SQL = """
CREATE TABLE IF NOT EXISTS crm.migrations (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
CURRENT_VERSION_SQL = "SELECT coalesce(max(version), 0) AS version FROM crm.migrations"
RECORD_VERSION_SQL = "INSERT INTO crm.migrations (version) VALUES (%s)"

Migration: TypeAlias = Callable[[Connection], Awaitable[None]]


def _file(name: str) -> Migration:
    async def apply(connection: Connection) -> None:
        statements = await asyncio.to_thread((Path(__file__).parent / "sql" / name).read_bytes)
        # A file has several statements, which a prepared statement cannot.
        await connection.execute(statements, prepare=False)

    return apply


# Position is version: append, never edit or reorder. When the seed gains rows, append `seeds` of their tables
# again: it leaves the rows alone that are there.
MIGRATIONS: tuple[Migration, ...] = (
    _file("0001_tables.sql"),
    seeds(*SUPPORT),
    _file("0002_sales.sql"),
    seeds(*SALES),
)


async def migrate(pool: Pool) -> None:
    """Bring the schema ``crm`` up to date; nothing to do is fine.

    Services that start together take turns. It is one transaction: a failure leaves the schema as it was.

    Args:
        pool: The service's pool.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(LOCK_SQL, (LOCK_ID,))
        await connection.execute(CREATE_SCHEMA_SQL)
        await connection.execute(CREATE_VERSIONS_SQL)
        current = await (await connection.execute(CURRENT_VERSION_SQL)).fetchone()
        applied = current["version"] if current else 0
        for version, apply in enumerate(MIGRATIONS[applied:], start=applied + 1):
            await apply(connection)
            await connection.execute(RECORD_VERSION_SQL, (version,))
