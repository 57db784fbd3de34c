"""Which embedding model is current, and what changes with it."""

from dataclasses import dataclass
from typing import Final

from core.embeddings import Embedder
from core.logging import get_logger
from core.postgres import Connection, Pool, lock_migrations

log = get_logger(__name__)

# pgvector's limit for an HNSW index over halfvec.
MAX_INDEXED_DIMENSIONS: Final = 4_000

FIND_SQL = "SELECT id, current FROM memory.models WHERE name = %s AND dimensions = %s"
INSERT_SQL = "INSERT INTO memory.models (name, dimensions) VALUES (%s, %s) RETURNING id, current"
RETIRE_SQL = "UPDATE memory.models SET current = false WHERE current"
CURRENT_SQL = "UPDATE memory.models SET current = true WHERE id = %s"
QUEUE_ALL_SQL = """
INSERT INTO memory.unembedded (unit)
SELECT id FROM memory.units
WHERE NOT EXISTS (SELECT FROM memory.vectors WHERE vectors.unit = units.id AND model = %s)
ON CONFLICT (unit) DO NOTHING
"""
# Beside it the index of every other model stays until its last vector is gone.
CREATE_INDEX_SQL = b"""
CREATE INDEX IF NOT EXISTS vectors_hnsw_%(id)d ON memory.vectors
USING hnsw ((embedding::halfvec(%(dimensions)d)) halfvec_cosine_ops) WHERE large AND model = %(id)d
"""
PROGRESS_SQL = """
SELECT (SELECT count(*) FROM memory.units) AS units, (SELECT count(*) FROM memory.unembedded) AS waiting
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model that vectors are made and compared with.

    Attributes:
        id: In ``memory.indexer``.
        name: ``provider:model``.
        dimensions: Of its vectors.
    """

    id: int
    name: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the current model has come: ``waiting`` of ``units`` have no vector of it yet."""

    units: int
    waiting: int


async def activate(pool: Pool, embedder: Embedder) -> Model:
    """Make the embedder's model the current one; where it was another, queue every unit for it.

    Vectors of the earlier model stay until the last unit has one of this.

    Args:
        pool: The service's pool; the table of vectors is there.
        embedder: For retrieval.

    Raises:
        psycopg.Error: The database cannot be reached.
    """
    async with pool.connection() as connection, connection.transaction():
        await lock_migrations(connection, "memory")
        key = (embedder.model, embedder.dimensions)
        row = await (await connection.execute(FIND_SQL, key)).fetchone()
        row = row or await (await connection.execute(INSERT_SQL, key)).fetchone()
        assert row  # noqa: S101  # the INSERT returns one
        model = Model(id=row["id"], name=embedder.model, dimensions=embedder.dimensions)
        if not row["current"]:
            await _change(connection, model)
    return model


async def _change(connection: Connection, model: Model) -> None:
    await connection.execute(RETIRE_SQL)
    await connection.execute(CURRENT_SQL, (model.id,))
    queued = await connection.execute(QUEUE_ALL_SQL, (model.id,))
    if model.dimensions <= MAX_INDEXED_DIMENSIONS:
        # No row of the model is large yet, or the index is there: this takes no time.
        index = CREATE_INDEX_SQL % {b"id": model.id, b"dimensions": model.dimensions}
        await connection.execute(index)
    log.info("memory_model", model=model.name, dimensions=model.dimensions, queued=queued.rowcount)


async def progress(pool: Pool) -> Progress:
    """How many units there are, and how many wait for a vector of the current model."""
    async with pool.connection() as connection:
        row = await (await connection.execute(PROGRESS_SQL)).fetchone()
    return Progress(**row) if row else Progress(0, 0)
