"""The queue's tables: procrastinate's own, migrated with the files that its wheel ships.

Like the tables of LangGraph's saver they are in the first schema of the ``search_path``: procrastinate's
statements and functions name no schema, and a setting of the session would not survive a pooler.
"""

from pathlib import Path
from typing import Final

from procrastinate.schema import SchemaManager

from core import postgres
from core.postgres import Connection, Migration, Pool

# The schema that holds nothing but the versions applied.
VERSIONS_SCHEMA: Final = "queue"
# The newest file of the version that is pinned. An upgrade of procrastinate that brings more has them
# applied, but a test asks to look at them first: a file with `_post_` in its name removes what workers of the
# version before call, so that a release without it has to come first.
NEWEST_FILE: Final = "03.04.00_50_post_add_retry_failed_job_procedure.sql"

# Fetching a job looks for others with its lock. Without this index, each job that waits was compared with
# each other one: with 3,000 of them, a fetch took 0.9 s on a table without statistics.
LOCK_INDEX_SQL: Final = b"""
CREATE INDEX queued_jobs_by_lock ON procrastinate_jobs (lock) WHERE status IN ('todo', 'doing')
"""
ANALYZE_SQL: Final = b"ANALYZE procrastinate_jobs, procrastinate_events, procrastinate_workers"


def list_files() -> list[Path]:
    """Return procrastinate's migrations, oldest first. Upstream only ever appends."""
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


# Read at import, never while a request waits.
_FILES: Final = tuple(file.read_bytes() for file in list_files())
_SCHEMA: Final = SchemaManager.get_schema().encode()


async def migrate_queue(pool: Pool) -> None:
    """Bring the queue's tables up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, VERSIONS_SCHEMA, _build_migrations())


def _build_migrations() -> list[Migration]:
    """Return a migration for each file; on an empty database the first creates what all of them lead to."""
    is_new = False

    async def create(connection: Connection) -> None:
        nonlocal is_new
        is_new = True
        await connection.execute(_SCHEMA, prepare=False)
        await connection.execute(LOCK_INDEX_SQL)
        await connection.execute(ANALYZE_SQL)

    def upgrade(file: bytes) -> Migration:
        async def apply(connection: Connection) -> None:
            if not is_new:
                await connection.execute(file, prepare=False)

        return apply

    return [create, *(upgrade(file) for file in _FILES[1:])]
