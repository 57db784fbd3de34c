"""The background indexer: gives every unit a vector, new ones first.

What is to be done is in the database (``memory.unembedded``), so a crash loses nothing and several services
share the work. Vectors are made between transactions: no connection waits for a model.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from psycopg.rows import DictRow

from core.embeddings import Embedder
from core.errors import EmbeddingError, MemoryUnavailable
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Connection, Pool
from memory.database import translate_errors
from memory.indexer import MAX_INDEXED_DIMENSIONS, Model
from memory.texts import build_embedded_text

log = get_logger(__name__)

BATCH: Final = 32
# A service that took units and died is waited for so long.
LEASE_SECONDS: Final = 120
# Units of services that could not wake this one, and those whose lease ended, are found so late.
POLL_SECONDS: Final = 15.0
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
# Up to here all vectors of a scope are compared; measured in benchmarks/README.md.
EXACT_SCAN_VECTORS: Final = 20_000
RETIRED_BATCH: Final = 5_000

LEASE_SQL = """
WITH leased AS (
    UPDATE memory.unembedded SET leased_until = now() + %(seconds)s * interval '1 second'
    WHERE unit IN (
        SELECT unit FROM memory.unembedded WHERE leased_until < now()
        ORDER BY unit DESC LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    )
    RETURNING unit, leased_until
)
SELECT leased.unit, leased_until, units.scope, units.date, units.text, coalesce(before.text, '') AS before
FROM leased JOIN memory.units ON units.id = leased.unit
LEFT JOIN LATERAL (
    SELECT b.text FROM memory.units AS b
    WHERE b.scope = units.scope AND b.session_id = units.session_id
      AND (b.at, b.message, b.part) < (units.at, units.message, units.part)
    ORDER BY b.at DESC, b.message DESC, b.part DESC LIMIT 1
) AS before ON true
"""
RELEASE_SQL = """
UPDATE memory.unembedded SET leased_until = '-infinity' WHERE unit = ANY(%s) AND leased_until = %s
"""
# A unit may have been forgotten meanwhile; the lock keeps it until the vector is in.
STORE_SQL = """
INSERT INTO memory.vectors (scope, unit, model, large, embedding)
SELECT units.scope, units.id, %s, scopes.large, made.embedding::halfvec
FROM unnest(%s::bigint[], %s::text[]) AS made (unit, embedding)
JOIN memory.units ON units.id = made.unit
JOIN memory.scopes ON scopes.id = units.scope
ORDER BY units.id
FOR KEY SHARE OF units, scopes
ON CONFLICT (unit, model) DO UPDATE SET embedding = excluded.embedding
"""
# A unit that was queued again meanwhile has lost the lease, and stays.
DONE_SQL = "DELETE FROM memory.unembedded WHERE unit = ANY(%s) AND leased_until = %s"
GROWN_SQL = """
SELECT id FROM memory.scopes
WHERE id = ANY(%(scopes)s) AND NOT large AND %(limit)s < (
    SELECT count(*) FROM (SELECT FROM memory.vectors WHERE scope = scopes.id LIMIT %(limit)s + 1) AS counted
)
"""
LARGE_VECTORS_SQL = "UPDATE memory.vectors SET large = true WHERE scope = %s AND NOT large"
LARGE_SCOPE_SQL = "UPDATE memory.scopes SET large = true WHERE id = %s"
RETIRED_SQL = """
DELETE FROM memory.vectors WHERE ctid IN (
    SELECT ctid FROM memory.vectors WHERE model <> %s LIMIT %s
)
"""
EMPTY_SQL = "SELECT NOT EXISTS (SELECT FROM memory.unembedded) AS empty"


class Indexer:
    """Embeds what waits, in one task.

    Args:
        pool: The service's pool.
        embedder: For retrieval.
        model: The embedder's, as :func:`memory.indexer.activate_model` gave it.
        exact_scan_vectors: From how many vectors a scope is searched with the HNSW index.
    """

    def __init__(
        self, pool: Pool, embedder: Embedder, model: Model, *, exact_scan_vectors: int = EXACT_SCAN_VECTORS
    ) -> None:
        self._pool = pool
        self._embedder = embedder
        self._model = model
        self._exact_scan_vectors = exact_scan_vectors
        self._woken = asyncio.Event()
        self._closed = False

    def wake(self) -> None:
        """Say that something waits."""
        self._woken.set()

    async def aclose(self, task: asyncio.Task[None]) -> None:
        """End the task that runs :meth:`run`; what it was at waits in the database."""
        # The pool can take a cancellation for a fault of its own: then the flag ends the loop.
        self._closed = True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def run(self) -> None:
        """Embed until closed; a fault of the model or the database is waited out."""
        pause = FIRST_PAUSE_SECONDS
        while not self._closed:
            self._woken.clear()
            try:
                await self.drain()
            except (EmbeddingError, MemoryUnavailable, *DATABASE_UNAVAILABLE) as fault:
                if self._closed:
                    return
                details = getattr(fault, "details", None)
                log.warning("memory_indexing_waits", reason=str(fault), details=details, seconds=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            pause = FIRST_PAUSE_SECONDS
            if self._closed:
                return
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def drain(self) -> int:
        """Embed all that waits now and drop what is left of earlier models.

        Returns:
            How many vectors were made.

        Raises:
            EmbeddingError: The model fails; what it was to embed waits on.
            MemoryUnavailable: The database cannot be reached.
        """
        made = 0
        with translate_errors():
            while batch := await self._batch():
                made += batch
            if made:
                await self._retire()
        return made

    async def _batch(self) -> int:
        rows = await self._lease()
        if not rows:
            return 0
        units, until = [row["unit"] for row in rows], rows[0]["leased_until"]
        try:
            vectors = await self._embedder.embed_documents(
                [build_embedded_text(row["date"], row["before"], row["text"]) for row in rows]
            )
        except (EmbeddingError, asyncio.CancelledError):
            async with self._pool.connection() as connection:
                await connection.execute(RELEASE_SQL, (units, until))
            raise
        async with self._pool.connection() as connection, connection.transaction():
            texts = [halfvec(vector) for vector in vectors]
            await connection.execute(STORE_SQL, (self._model.id, units, texts))
            await connection.execute(DONE_SQL, (units, until))
            await self._mark_large(connection, sorted({row["scope"] for row in rows}))
        return len(rows)

    async def _lease(self) -> list[DictRow]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(LEASE_SQL, {"seconds": LEASE_SECONDS, "batch": BATCH})
            return await cursor.fetchall()

    async def _mark_large(self, connection: Connection, scopes: Sequence[int]) -> None:
        if self._model.dimensions > MAX_INDEXED_DIMENSIONS:
            return
        parameters = {"scopes": scopes, "limit": self._exact_scan_vectors}
        for row in await (await connection.execute(GROWN_SQL, parameters)).fetchall():
            await connection.execute(LARGE_VECTORS_SQL, (row["id"],))
            await connection.execute(LARGE_SCOPE_SQL, (row["id"],))

    async def _retire(self) -> None:
        """Drop vectors of earlier models, once every unit has one of the current model."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(EMPTY_SQL)).fetchone()
            while row and row["empty"]:
                cursor = await connection.execute(RETIRED_SQL, (self._model.id, RETIRED_BATCH))
                if not cursor.rowcount:
                    break


def halfvec(vector: Sequence[float]) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(f"{number:.5g}" for number in vector) + "]"
