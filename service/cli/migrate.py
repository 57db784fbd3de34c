"""``python -m service.cli.migrate``: bring the database up to date before replicas start.

A service does the same when it starts; as a job of its own, replicas find nothing left to do, and may run as
a role that cannot change the schema. Each room's migrations hold an advisory lock, so that any number of
jobs and replicas may begin at once; done twice, nothing happens.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping

from checkpoints.pool import open_pool
from checkpoints.saver import open_saver
from core.errors import StartupError
from core.logging import configure_logging, get_logger
from core.postgres import Pool
from core.settings import Settings
from dev_crm.migrations import migrate as migrate_crm
from memory.extensions import open_extensions
from memory.migrations import migrate as migrate_memory
from service.audit.migrations import migrate as migrate_ledger
from service.auth.migrations import migrate as migrate_identity
from service.sessions.migrations import migrate as migrate_sessions
from service.version import VERSION
from workflows.store import migrate as migrate_workflows

log = get_logger(__name__)

ROOMS: Mapping[str, Callable[[Pool], Awaitable[None]]] = {
    "identity": migrate_identity,
    "ledger": migrate_ledger,
    "sessions": migrate_sessions,
    "workflows": migrate_workflows,
}


async def migrate_all(pool: Pool, settings: Settings) -> None:
    """Every room's migrations.

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


async def migrate_rooms(pool: Pool) -> None:
    """Those of the rooms whose tables are always in this database.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    for room, migrate in ROOMS.items():
        await migrate(pool)
        log.debug("migrated", room=room)


async def _command() -> None:
    settings = Settings.load()
    configure_logging(settings.log)
    if settings.database.url is None:
        raise StartupError(
            "DATABASE_URL is not set: name the database to migrate. The embedded one is migrated by the "
            "service that starts it"
        )
    async with open_pool(settings.database.url.get_secret_value(), settings.database) as pool:
        await migrate_all(pool, settings)
    log.info("database_up_to_date", version=VERSION)


def main() -> int:
    """The command.

    Returns:
        0 when the database is up to date, 1 when it cannot be.
    """
    try:
        asyncio.run(_command())
    except StartupError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
