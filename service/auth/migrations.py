"""Append-only migrations of the schema ``identity``."""

from pathlib import Path

from core import postgres
from core.postgres import Pool

_SQL = Path(__file__).parent / "sql"

# Position is version: append, never edit or reorder. Read at import, never while a request waits.
MIGRATIONS: tuple[bytes, ...] = (
    (_SQL / "0001_api_keys.sql").read_bytes(),
    (_SQL / "0002_request_counts.sql").read_bytes(),
)


async def migrate(pool: Pool) -> None:
    """Bring the schema up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, "identity", MIGRATIONS)
