"""Migrate the database: the schemas of the service's own rooms, and those of the other rooms.

Each room's migrations hold an advisory lock, so any number of replicas and jobs may start at once; applying
them twice changes nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from checkpoints.saver import open_saver
from core import postgres
from core.logging import get_logger
from core.postgres import Pool
from core.settings import Settings
from dev_crm.migrations import migrate as migrate_crm
from memory.database import migrate as migrate_memory
from memory.database import open_extensions
from service.queue import migrate_queue
from workflows.store import migrate as migrate_workflows

log = get_logger(__name__)


def _read_migrations(room: str) -> Sequence[bytes]:
    """Return a room's migrations, ``sql/0001_*.sql`` first: append new files, never edit or reorder."""
    return [file.read_bytes() for file in sorted((Path(__file__).parent / room / "sql").glob("0*.sql"))]


# By schema. Read at import, never while a request waits.
MIGRATIONS: Final[Mapping[str, Sequence[bytes]]] = {
    schema: _read_migrations(schema) for schema in ("auth", "runs", "audit", "sessions")
}
# Last, because its triggers are on tables of the others.
OUTBOX_MIGRATIONS: Final = _read_migrations("outbox")


async def migrate_rooms(pool: Pool) -> None:
    """Migrate the rooms whose tables are always in this database.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    for schema, migrations in MIGRATIONS.items():
        await postgres.migrate(pool, schema, migrations)
        log.debug("migrated", room=schema)
    await migrate_queue(pool)
    log.debug("migrated", room="queue")
    await migrate_workflows(pool)
    log.debug("migrated", room="workflows")
    await postgres.migrate(pool, "outbox", OUTBOX_MIGRATIONS)
    log.debug("migrated", room="outbox")


async def migrate_all(pool: Pool, settings: Settings) -> None:
    """Migrate every room.

    Args:
        pool: The database.
        settings: Which rooms keep their tables in it: memory and CRM may be elsewhere.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    async with open_saver(pool):
        log.info("migrated", room="checkpoints")
    await migrate_rooms(pool)
    if settings.memory.grpc_target is None:
        await migrate_memory(pool)
        await open_extensions(pool)
        log.info("migrated", room="memory")
    if settings.crm.api_base is None:
        await migrate_crm(pool)
        log.info("migrated", room="crm")
