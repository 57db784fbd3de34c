"""Extensions of Postgres that memory can use, and does without where a server has them not."""

from dataclasses import dataclass

import psycopg
from psycopg import sql

from core.logging import get_logger
from core.postgres import Connection, Pool, lock_migrations
from memory.database import sql_file

log = get_logger(__name__)

VECTORS_SQL = sql_file("vectors.sql")
HAS_HALFVEC_SQL = "SELECT to_regtype('halfvec') IS NOT NULL AS found"
HAS_TRIGRAMS_SQL = "SELECT to_regproc('word_similarity') IS NOT NULL AS found"

MISSING_VECTOR = "the database has no pgvector 0.7 or newer: ask its owner for CREATE EXTENSION vector"
MISSING_TRIGRAMS = "the database has no pg_trgm: ask its owner for CREATE EXTENSION pg_trgm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extensions:
    """What the server has.

    Attributes:
        vector: pgvector with ``halfvec``, and the table of vectors.
        trigrams: pg_trgm.
    """

    vector: bool
    trigrams: bool


async def open_extensions(pool: Pool) -> Extensions:
    """Make the extensions usable that can be, and the tables that need them.

    A superuser is needed for the first ``CREATE EXTENSION`` of some; without one, what the server's owner
    made is used.

    Args:
        pool: The service's pool; the schema is there.

    Raises:
        psycopg.Error: The database cannot be reached.
    """
    async with pool.connection() as connection, connection.transaction():
        await lock_migrations(connection, "memory")
        vector = await _usable(connection, "vector", HAS_HALFVEC_SQL)
        trigrams = await _usable(connection, "pg_trgm", HAS_TRIGRAMS_SQL)
        if vector:
            await connection.execute(VECTORS_SQL, prepare=False)
    return Extensions(vector=vector, trigrams=trigrams)


async def _usable(connection: Connection, name: str, probe: str) -> bool:
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
