"""Append-only migrations of the schema ``memory``."""

from memory.database import Pool, sql_file

# Any fixed number will do; it names "the memory's migrations" among advisory locks.
LOCK_ID = 0x6D_65_6D_6F_72_79

LOCK_SQL = "SELECT pg_advisory_xact_lock(%s)"
CREATE_SCHEMA_SQL = "CREATE SCHEMA IF NOT EXISTS memory"
CREATE_VERSIONS_SQL = """
CREATE TABLE IF NOT EXISTS memory.migrations (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
CURRENT_VERSION_SQL = "SELECT coalesce(max(version), 0) AS version FROM memory.migrations"
RECORD_VERSION_SQL = "INSERT INTO memory.migrations (version) VALUES (%s)"

# Position is version: append, never edit or reorder. What needs an extension is not here: it comes and
# goes with the server, see memory/extensions.py.
MIGRATIONS: tuple[bytes, ...] = (
    sql_file("0001_tables.sql"),
    sql_file("0002_facts.sql"),
    sql_file("0003_items.sql"),
    sql_file("0004_fact_search.sql"),
)


async def migrate(pool: Pool) -> None:
    """Bring the schema ``memory`` up to date; nothing to do is fine.

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
        for version, statements in enumerate(MIGRATIONS[applied:], start=applied + 1):
            # A file has several statements, which a prepared statement cannot.
            await connection.execute(statements, prepare=False)
            await connection.execute(RECORD_VERSION_SQL, (version,))
