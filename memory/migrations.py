"""Append-only migrations of the schema ``memory``."""

from core import postgres
from core.postgres import Pool
from memory.database import sql_file

# Position is version: append, never edit or reorder. What needs an extension is not here: it comes and
# goes with the server, see memory/database.py.
MIGRATIONS: tuple[bytes, ...] = (
    sql_file("0001_tables.sql"),
    sql_file("0002_facts.sql"),
    sql_file("0003_items.sql"),
    sql_file("0004_fact_search.sql"),
)


async def migrate(pool: Pool) -> None:
    """Bring the schema up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, "memory", MIGRATIONS)
