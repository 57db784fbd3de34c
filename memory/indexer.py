"""The background indexer, which gives every unit a vector of the current embedding model, newest first.

The further parts of long messages come last, so that they keep no other message waiting.

The work queue is a table (``memory.unembedded``), so that a crash loses nothing and several services share
the work. Vectors are computed between transactions, so that no connection waits for a model.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from psycopg.rows import DictRow

from core.embeddings import Embedder
from core.errors import EmbeddingError, MemoryUnavailable
from core.logging import get_logger
from core.postgres import Connection, Pool, lock_migrations, read_queries
from core.tasks import Backoff, periodic
from memory.database import SQL_FOLDER, translate_errors
from memory.texts import FIRST_PARTS, build_embedded_text

log = get_logger(__name__)

T = TypeVar("T")

BATCH: Final = 32
# Calls of the model for one batch at most: a newer message waits for no more of them.
BATCH_CALLS: Final = 8
# How long the units of a service that died are left to it.
LEASE_SECONDS: Final = 120
# How often to look for units of services that could not wake this one, and for those whose lease ended.
POLL_SECONDS: Final = 15.0
BACKOFF: Final = Backoff(first=1.0, longest=60.0)
# Up to this number, all vectors of a scope are compared. Measured; see benchmarks/README.md.
EXACT_SCAN_VECTORS: Final = 20_000
# pgvector's limit for an HNSW index over halfvec.
MAX_INDEXED_DIMENSIONS: Final = 4_000
RETIRED_BATCH: Final = 5_000

_QUERIES: Final = read_queries(SQL_FOLDER / "indexer.sql")
FIND_MODEL_SQL: Final = "SELECT id, current FROM memory.models WHERE name = %s AND dimensions = %s"
INSERT_MODEL_SQL: Final = "INSERT INTO memory.models (name, dimensions) VALUES (%s, %s) RETURNING id, current"
RETIRE_MODEL_SQL: Final = "UPDATE memory.models SET current = false WHERE current"
ACTIVATE_MODEL_SQL: Final = "UPDATE memory.models SET current = true WHERE id = %s"
# The indexes of other models stay until their last vector is deleted.
CREATE_INDEX_SQL: Final = b"""
CREATE INDEX IF NOT EXISTS vectors_hnsw_%(id)d ON memory.vectors
USING hnsw ((embedding::halfvec(%(dimensions)d)) halfvec_cosine_ops) WHERE large AND model = %(id)d
"""
PROGRESS_SQL: Final = """
SELECT (SELECT count(*) FROM memory.units) AS units, (SELECT count(*) FROM memory.unembedded) AS waiting
"""
RELEASE_SQL: Final = """
UPDATE memory.unembedded SET leased_until = '-infinity' WHERE unit = ANY(%s) AND leased_until = %s
"""
# A unit that was queued again meanwhile no longer has this lease, and stays queued.
DONE_SQL: Final = "DELETE FROM memory.unembedded WHERE unit = ANY(%s) AND leased_until = %s"
LARGE_VECTORS_SQL: Final = "UPDATE memory.vectors SET large = true WHERE scope = %s AND NOT large"
LARGE_SCOPE_SQL: Final = "UPDATE memory.scopes SET large = true WHERE id = %s"
IS_EMPTY_SQL: Final = "SELECT NOT EXISTS (SELECT FROM memory.unembedded) AS empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The embedding model that vectors are made and compared with.

    Attributes:
        id: Its id in the table of models.
        name: ``provider:model``.
        dimensions: The dimensions of its vectors.
    """

    id: int
    name: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The indexer's progress: ``waiting`` of ``units`` have no vector of the current model yet."""

    units: int
    waiting: int


async def activate_model(pool: Pool, embedder: Embedder) -> Model:
    """Make the embedder's model the current one; if another one was, queue every unit for it.

    Vectors of the earlier model stay until the last unit has a vector of the new one.

    Args:
        pool: The service's pool; the table of vectors exists.
        embedder: The embedder for retrieval.

    Raises:
        psycopg.Error: The database cannot be reached.
    """
    async with pool.connection() as connection, connection.transaction():
        await lock_migrations(connection, "memory")
        key = (embedder.model, embedder.dimensions)
        row = await (await connection.execute(FIND_MODEL_SQL, key)).fetchone()
        row = row or await (await connection.execute(INSERT_MODEL_SQL, key)).fetchone()
        assert row  # noqa: S101  # the INSERT returns one
        model = Model(id=row["id"], name=embedder.model, dimensions=embedder.dimensions)
        if not row["current"]:
            await _switch_model(connection, model)
    return model


async def _switch_model(connection: Connection, model: Model) -> None:
    await connection.execute(RETIRE_MODEL_SQL)
    await connection.execute(ACTIVATE_MODEL_SQL, (model.id,))
    queued = await connection.execute(_QUERIES["queue_all"], (FIRST_PARTS, model.id))
    if model.dimensions <= MAX_INDEXED_DIMENSIONS:
        # Takes no time: either no row of the model is large yet, or the index exists.
        index = CREATE_INDEX_SQL % {b"id": model.id, b"dimensions": model.dimensions}
        await connection.execute(index)
    log.info("memory_model", model=model.name, dimensions=model.dimensions, queued=queued.rowcount)


async def load_progress(pool: Pool) -> Progress:
    """Return how many units there are, and how many wait for a vector of the current model."""
    async with pool.connection() as connection:
        row = await (await connection.execute(PROGRESS_SQL)).fetchone()
    return Progress(**row) if row else Progress(0, 0)


class Indexer:
    """Computes the vectors of queued units.

    Args:
        pool: The service's pool.
        embedder: The embedder for retrieval.
        model: The embedder's model, from :func:`activate_model`.
        exact_scan_vectors: Scopes with more vectors are searched with the HNSW index.
    """

    def __init__(
        self, pool: Pool, embedder: Embedder, model: Model, *, exact_scan_vectors: int = EXACT_SCAN_VECTORS
    ) -> None:
        self._pool = pool
        self._embedder = embedder
        self._model = model
        self._exact_scan_vectors = exact_scan_vectors
        self._batch = min(BATCH, BATCH_CALLS * embedder.batch)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Tell the indexer that units were queued."""
        self._wake.set()

    async def run(self) -> None:
        """Index until cancelled, with growing pauses while the model or the database is unavailable."""
        await periodic(
            "memory-indexer",
            self.drain,
            seconds=POLL_SECONDS,
            at_once=True,
            wake=self._wake,
            backoff=BACKOFF,
            unavailable=(EmbeddingError, MemoryUnavailable),
        )

    async def drain(self) -> int:
        """Index everything that is queued, and delete what is left of earlier models.

        Returns:
            How many vectors were made.

        Raises:
            EmbeddingError: The model failed; its units stay queued.
            MemoryUnavailable: The database cannot be reached.
        """
        indexed = 0
        with translate_errors():
            while batch := await self._index_batch():
                indexed += batch
            if indexed:
                await self._delete_retired()
        return indexed

    async def _index_batch(self) -> int:
        rows = await self._lease_batch()
        if not rows:
            return 0
        try:
            vectors = await self._embedder.embed_documents(
                [build_embedded_text(row["date"], row["before"], row["text"]) for row in rows]
            )
            await self._store(rows, vectors)
        except (EmbeddingError, asyncio.CancelledError):
            await _finish(asyncio.create_task(self._release(rows)))
            raise
        return len(rows)

    async def _store(self, rows: Sequence[DictRow], vectors: Sequence[Sequence[float]]) -> None:
        units = [row["unit"] for row in rows]
        async with self._pool.connection() as connection, connection.transaction():
            texts = [format_halfvec(vector) for vector in vectors]
            await connection.execute(_QUERIES["store"], (self._model.id, units, texts))
            await connection.execute(DONE_SQL, (units, rows[0]["leased_until"]))
            await self._mark_large(connection, sorted({row["scope"] for row in rows}))

    async def _lease_batch(self) -> list[DictRow]:
        lease = asyncio.create_task(self._lease())
        try:
            return await asyncio.shield(lease)
        except asyncio.CancelledError:
            # The lease may have been committed already.
            if rows := await _finish(lease):
                await _finish(asyncio.create_task(self._release(rows)))
            raise

    async def _lease(self) -> list[DictRow]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                _QUERIES["lease"], {"seconds": LEASE_SECONDS, "batch": self._batch}
            )
            return await cursor.fetchall()

    async def _release(self, rows: Sequence[DictRow]) -> None:
        """Return leased units to the queue."""
        units = [row["unit"] for row in rows]
        async with self._pool.connection() as connection:
            await connection.execute(RELEASE_SQL, (units, rows[0]["leased_until"]))

    async def _mark_large(self, connection: Connection, scopes: Sequence[int]) -> None:
        if self._model.dimensions > MAX_INDEXED_DIMENSIONS:
            return
        parameters = {"scopes": scopes, "limit": self._exact_scan_vectors}
        for row in await (await connection.execute(_QUERIES["list_grown_scopes"], parameters)).fetchall():
            await connection.execute(LARGE_VECTORS_SQL, (row["id"],))
            await connection.execute(LARGE_SCOPE_SQL, (row["id"],))

    async def _delete_retired(self) -> None:
        """Delete vectors of earlier models once no unit waits for the current one."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(IS_EMPTY_SQL)).fetchone()
            while row and row["empty"]:
                cursor = await connection.execute(_QUERIES["delete_retired"], (self._model.id, RETIRED_BATCH))
                if not cursor.rowcount:
                    break


async def _finish(task: asyncio.Task[T]) -> T:
    """Return a task's result, even if the caller is cancelled meanwhile."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


def format_halfvec(vector: Sequence[float]) -> str:
    """Format a vector as pgvector reads it."""
    return "[" + ",".join(f"{number:.5g}" for number in vector) + "]"
