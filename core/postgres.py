"""What every package with tables of its own shares: the pool's type, append-only migrations, outages."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from psycopg import AsyncConnection, OperationalError, sql
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

Connection: TypeAlias = AsyncConnection[DictRow]
Pool: TypeAlias = AsyncConnectionPool[Connection]

# The exceptions that mean that the database cannot be reached, or cannot serve at the moment. Never catch
# psycopg.Error for this: ProgrammingError, DataError and the like are bugs in our SQL, not outages.
DATABASE_UNAVAILABLE: Final = (OperationalError, PoolTimeout, PoolClosed)

# Raised by the function runs.require_claims() (service/runs/sql): a run belongs to another replica.
CLAIM_LOST: Final = "VA001"
# PostgreSQL, appendix A: serialization_failure, deadlock_detected.
_ROLLED_BACK: Final = ("40001", "40P01")
# PostgreSQL, appendix A: disk_full.
_DISK_FULL: Final = "53100"

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


def concerns_database(error: Exception) -> bool:
    """Return whether an error says nothing about the statement: the database cannot serve at the moment."""
    # A deadlock is about what other transactions do at the same time.
    return isinstance(error, DATABASE_UNAVAILABLE) and getattr(error, "sqlstate", None) not in _ROLLED_BACK


def describe_outage(error: BaseException) -> str:
    """Return what a caller is told of one of :data:`DATABASE_UNAVAILABLE`, without the driver's own words."""
    if isinstance(error, OperationalError) and error.sqlstate == _DISK_FULL:
        return "the database accepts no writes, because its disk is full; nothing was lost, try again"
    return "the database does not answer; nothing was lost, try again"


async def lock_migrations(connection: Connection, schema: str) -> None:
    """Wait until no other process migrates the schema, and keep others out until the transaction ends."""
    await connection.execute(LOCK_SQL, (schema,))


async def migrate(pool: Pool, schema: str, migrations: Sequence[Migration]) -> None:
    """Apply the migrations that a schema lacks.

    All of them are applied in one transaction, so a failure leaves the schema as it was. Services that start
    at the same time migrate one after the other.

    Args:
        pool: The service's pool.
        schema: Created if it does not exist, with a table ``migrations`` of the versions that were applied.
        migrations: The position is the version: append, never edit or reorder.

    Raises:
        psycopg.Error: The database cannot be reached, or rejects a statement.
    """
    versions = sql.Identifier(schema, "migrations")
    async with pool.connection() as connection, connection.transaction():
        await lock_migrations(connection, schema)
        await connection.execute(sql.SQL(CREATE_SCHEMA_SQL).format(sql.Identifier(schema)))
        await connection.execute(sql.SQL(CREATE_VERSIONS_SQL).format(versions))
        cursor = await connection.execute(sql.SQL(CURRENT_VERSION_SQL).format(versions))
        current = await cursor.fetchone()
        applied = current["version"] if current else 0
        for version, migration in enumerate(migrations[applied:], start=applied + 1):
            if isinstance(migration, bytes):
                # A prepared statement cannot hold the several statements of a file.
                await connection.execute(migration, prepare=False)
            else:
                await migration(connection)
            await connection.execute(sql.SQL(RECORD_VERSION_SQL).format(versions), (version,))


def read_queries(file: Path) -> dict[str, bytes]:
    """Read a file of SQL queries, each of which follows a line ``-- name: <name>``; comments are left out."""
    queries: dict[str, bytes] = {}
    for section in file.read_text(encoding="utf-8").split("-- name: ")[1:]:
        name, _, text = section.partition("\n")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--")]
        queries[name.strip()] = "\n".join(lines).encode()
    return queries
