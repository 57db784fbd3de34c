"""What rooms with tables of their own have in common: the pool's type, and append-only migrations."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from psycopg import AsyncConnection, OperationalError, sql
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

Connection: TypeAlias = AsyncConnection[DictRow]
Pool: TypeAlias = AsyncConnectionPool[Connection]

# A database that is away, or going, as the driver and its pool say it.
AWAY: Final = (OperationalError, PoolTimeout, PoolClosed)

# The statements of a file, or a step that needs Python.
Migration: TypeAlias = bytes | Callable[[Connection], Awaitable[None]]

LOCK_SQL = "SELECT pg_advisory_xact_lock(hashtextextended('migrations of ' || %s, 0))"
CREATE_SCHEMA_SQL = "CREATE SCHEMA IF NOT EXISTS {}"
CREATE_VERSIONS_SQL = """
CREATE TABLE IF NOT EXISTS {} (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
CURRENT_VERSION_SQL = "SELECT coalesce(max(version), 0) AS version FROM {}"
RECORD_VERSION_SQL = "INSERT INTO {} (version) VALUES (%s)"


async def take_turns(connection: Connection, schema: str) -> None:
    """Wait until nobody else migrates a schema, and hold others up until the transaction ends."""
    await connection.execute(LOCK_SQL, (schema,))


async def migrate(pool: Pool, schema: str, migrations: Sequence[Migration]) -> None:
    """Bring a schema up to date; nothing to do is fine.

    Services that start together take turns. It is one transaction: a failure leaves the schema as it was.

    Args:
        pool: The service's pool.
        schema: Is created where it is missing, with a table ``migrations`` of what was applied.
        migrations: Position is version: append, never edit or reorder.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    versions = sql.Identifier(schema, "migrations")
    async with pool.connection() as connection, connection.transaction():
        await take_turns(connection, schema)
        await connection.execute(sql.SQL(CREATE_SCHEMA_SQL).format(sql.Identifier(schema)))
        await connection.execute(sql.SQL(CREATE_VERSIONS_SQL).format(versions))
        found = await connection.execute(sql.SQL(CURRENT_VERSION_SQL).format(versions))
        current = await found.fetchone()
        applied = current["version"] if current else 0
        for version, migration in enumerate(migrations[applied:], start=applied + 1):
            if isinstance(migration, bytes):
                # A file has several statements, which a prepared statement cannot.
                await connection.execute(migration, prepare=False)
            else:
                await migration(connection)
            await connection.execute(sql.SQL(RECORD_VERSION_SQL).format(versions), (version,))
