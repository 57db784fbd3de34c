"""The memory's database: migrations, optional Postgres extensions, and errors."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.errors import DeadlockDetected, SerializationFailure

from core import postgres
from core.errors import MemoryUnavailable
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Connection, Pool, lock_migrations

log = get_logger(__name__)

Result = TypeVar("Result")

MAX_ATTEMPTS: Final = 4
MAX_PAUSE_SECONDS: Final = 0.1

SQL_FOLDER: Final = Path(__file__).parent / "sql"
# Position is version: append, never edit or reorder. Tables that need an extension are not here, because a
# server may gain or lose it; see open_extensions.
MIGRATIONS: Final = tuple(
    (SQL_FOLDER / name).read_bytes()
    for name in (
        "0001_memory.sql",
        "0002_spanish_facts.sql",
        "0003_note_keys.sql",
        "0004_later_units.sql",
        "0005_events.sql",
    )
)
VECTORS_SQL: Final = (SQL_FOLDER / "vectors.sql").read_bytes()
HAS_HALFVEC_SQL: Final = "SELECT to_regtype('halfvec') IS NOT NULL AS found"
HAS_TRIGRAMS_SQL: Final = "SELECT to_regproc('word_similarity') IS NOT NULL AS found"

MISSING_VECTOR: Final = (
    "the database has no pgvector 0.7 or newer; ask its owner to run CREATE EXTENSION vector"
)
MISSING_TRIGRAMS: Final = "the database has no pg_trgm; ask its owner to run CREATE EXTENSION pg_trgm"


async def migrate(pool: Pool) -> None:
    """Bring the schema ``memory`` up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, "memory", MIGRATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extensions:
    """The extensions that the memory may use on its server; it works without them.

    Attributes:
        vector: pgvector with ``halfvec``, and the table of vectors.
        trigrams: pg_trgm.
    """

    vector: bool
    trigrams: bool


async def open_extensions(pool: Pool) -> Extensions:
    """Create the extensions if possible, and the tables that need them.

    The first ``CREATE EXTENSION`` may need a superuser. Without one, only extensions that the server's owner
    created are used.

    Args:
        pool: The service's pool; the schema is migrated.

    Raises:
        psycopg.Error: The database cannot be reached.
    """
    async with pool.connection() as connection, connection.transaction():
        await lock_migrations(connection, "memory")
        vector = await _create_extension(connection, "vector", HAS_HALFVEC_SQL)
        trigrams = await _create_extension(connection, "pg_trgm", HAS_TRIGRAMS_SQL)
        if vector:
            await connection.execute(VECTORS_SQL, prepare=False)
    return Extensions(vector=vector, trigrams=trigrams)


async def _create_extension(connection: Connection, name: str, probe: str) -> bool:
    """Create an extension if possible, and return whether it can be used."""
    try:
        async with connection.transaction():
            create = sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(name))
            await connection.execute(create)
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.NotSupportedError,
        psycopg.errors.UndefinedFile,
    ) as error:
        log.warning("memory_extension_missing", extension=name, reason=str(error).splitlines()[0])
    row = await (await connection.execute(probe.encode())).fetchone()
    return bool(row and row["found"])


async def retry_on_conflict(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat a transaction that Postgres rolled back in favour of a concurrent one.

    Raises:
        psycopg.OperationalError: Every attempt was rolled back.
    """
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return await attempt()
        except (DeadlockDetected, SerializationFailure):
            await asyncio.sleep(random.uniform(0, MAX_PAUSE_SECONDS))  # noqa: S311 - jitter
    return await attempt()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise :class:`MemoryUnavailable` instead of the driver's errors for an unavailable database.

    Raises:
        MemoryUnavailable: The database cannot be reached, or asks to try again. Other errors of the driver
            are bugs in our SQL, and pass.
    """
    try:
        yield
    except DATABASE_UNAVAILABLE as error:
        raise MemoryUnavailable(
            "The memory's database cannot be reached; try again later",
            details={"reason": type(error).__name__},
        ) from error
