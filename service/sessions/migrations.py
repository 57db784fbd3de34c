"""Append-only migrations of the schema ``sessions``."""

from pathlib import Path

from core import postgres
from core.postgres import Pool

# Position is version: append, never edit or reorder. Read at import, never while a request waits.
MIGRATIONS: tuple[bytes, ...] = ((Path(__file__).parent / "sql" / "0001_sessions.sql").read_bytes(),)


async def migrate(pool: Pool) -> None:
    """Bring the schema up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, "sessions", MIGRATIONS)
