"""Append-only migrations of the schema ``crm``."""

from pathlib import Path

from core import postgres
from core.postgres import Migration, Pool
from dev_crm.seeding import SALES, SUPPORT, seeds


def _file(name: str) -> bytes:
    return (Path(__file__).parent / "sql" / name).read_bytes()


# Position is version: append, never edit or reorder. When the seed gains rows, append `seeds` of their tables
# again: it leaves the rows alone that are there.
MIGRATIONS: tuple[Migration, ...] = (
    _file("0001_tables.sql"),
    seeds(*SUPPORT),
    _file("0002_sales.sql"),
    seeds(*SALES),
)


async def migrate(pool: Pool) -> None:
    """Bring the schema up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, "crm", MIGRATIONS)
