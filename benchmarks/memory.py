"""Measure searches in a database of a million memories: ``make bench-memory``.

The messages of all contacts are interleaved, so that the rows of one contact lie far apart, as they do in a
service that has run for years. Texts are made of invented words with Zipf's distribution, and vectors are
random: the database and the ranking are measured, not the embedding model, which adds its own time.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray
from rich.console import Console
from typing_extensions import override

from benchmarks.recall import percentile
from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.embeddings import Embedder
from core.memory import STRATEGIES, Scope
from core.postgres import Pool
from core.settings import DatabaseSettings
from memory import indexer, search
from memory.database import migrate, open_extensions
from memory.search import SearchDeps

DIMENSIONS: Final = 384
START: Final = datetime(2024, 1, 1, tzinfo=UTC)
SESSION: Final = 20  # messages
TENANTS: Final = 20
VOCABULARY: Final = 20_000
WORDS: Final = 20  # of a message
QUESTION: Final = 8  # words
BLOCK: Final = 20_000
SYLLABLES: Final = tuple(consonant + vowel for consonant, vowel in product("bcdfglmnprstv", "aeiou"))

SCOPES_SQL = """
INSERT INTO memory.scopes (tenant, contact_id)
SELECT 'tenant-' || number %% %(tenants)s, 'contact-' || number
FROM generate_series(0, %(contacts)s - 1) AS number
ORDER BY number
"""
MESSAGES_SQL = "COPY memory.messages (scope, id, role, text, at, session_id, channel_id) FROM STDIN"
# Does what memory/messages.py does when it indexes messages, for all of them at once.
UNITS_SQL = """
INSERT INTO memory.units
    (scope, message, part, session_id, at, configuration, date, text, words, identifiers, search, length)
SELECT scope, seq, 0, session_id, at, 'english', '7 May 2026', text, text, '',
       own || setweight(to_tsvector('english', '7 May 2026'), 'B')
           || coalesce(setweight(lag(own) OVER session, 'C'), '')
           || coalesce(setweight(lead(own) OVER session, 'D'), ''), 36
FROM (SELECT *, setweight(to_tsvector('english', text), 'A') AS own FROM memory.messages) AS parsed
WINDOW session AS (PARTITION BY scope, session_id ORDER BY at, seq)
ORDER BY seq
"""
VECTORS_SQL = "COPY memory.vectors (scope, unit, model, large, embedding) FROM STDIN (FORMAT binary)"
UNITS_OF_SQL = "SELECT id, scope FROM memory.units ORDER BY id"


class _RandomVectors(Embeddings):
    """An embedding model that takes no time."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(1)

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    @override
    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self._random.standard_normal(DIMENSIONS).tolist()
        return vector

    @override
    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)


class _Language:
    """Draws words with Zipf's distribution."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)  # noqa: S311  # no secret
        self._words = np.array(
            ["".join(random.choices(SYLLABLES, k=random.randint(2, 4))) for _ in range(VOCABULARY)]
        )
        frequency = 1 / np.arange(1, VOCABULARY + 1)
        self._shares = np.cumsum(frequency / frequency.sum())
        self._random = np.random.default_rng(seed)

    def texts(self, count: int, words: int) -> list[str]:
        """Return texts of this many words."""
        drawn = np.searchsorted(self._shares, self._random.random((count, words)))
        return [" ".join(row) for row in self._words[np.minimum(drawn, VOCABULARY - 1)].tolist()]


async def build(deps: SearchDeps, memories: int, contacts: int, say: Callable[[str], None]) -> None:
    """Fill the database."""
    start = time.perf_counter()
    async with deps.pool.connection() as connection:
        await connection.execute(SCOPES_SQL, {"tenants": TENANTS, "contacts": contacts})
    await _messages(deps.pool, memories, contacts)
    say(f"messages after {time.perf_counter() - start:.0f} s")
    async with deps.pool.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL work_mem = '512MB'")
        await connection.execute(UNITS_SQL)
    say(f"full text after {time.perf_counter() - start:.0f} s")
    await _vectors(deps)
    async with deps.pool.connection() as connection:
        await connection.execute("VACUUM ANALYZE memory.messages, memory.units, memory.vectors")
    say(f"{memories:,} memories of {contacts:,} contacts, built in {time.perf_counter() - start:.0f} s")


async def _messages(pool: Pool, memories: int, contacts: int) -> None:
    language = _Language(1)
    random = np.random.default_rng(1)
    async with (
        pool.connection() as connection,
        connection.cursor() as cursor,
        cursor.copy(MESSAGES_SQL) as copy,
    ):
        for start in range(0, memories, BLOCK):
            count = min(BLOCK, memories - start)
            owners = random.integers(1, contacts + 1, count).tolist()
            rows = zip(range(start, start + count), owners, language.texts(count, WORDS), strict=True)
            await copy.write("".join(_message_row(*row, contacts) for row in rows))


def _message_row(number: int, owner: int, text: str, contacts: int) -> str:
    at = START + timedelta(seconds=30 * number)
    # A contact's session ends after about SESSION messages.
    session = number // (SESSION * contacts)
    return f"{owner}\tm{number}\tcustomer\t{text}\t{at}\ts{session}\t\n"


async def _vectors(deps: SearchDeps) -> None:
    assert deps.model  # noqa: S101  # the embedded server has pgvector
    async with deps.pool.connection() as connection:
        rows = await (await connection.execute(UNITS_OF_SQL)).fetchall()
    units = np.array([(row["scope"], row["id"]) for row in rows], dtype=np.int64)
    random = np.random.default_rng(2)
    async with (
        deps.pool.connection() as connection,
        connection.cursor() as cursor,
        cursor.copy(VECTORS_SQL) as copy,
    ):
        await copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for start in range(0, len(units), BLOCK):
            await copy.write(_vector_rows(units[start : start + BLOCK], deps.model.id, random))
        await copy.write(b"\xff\xff")


def _vector_rows(units: NDArray[np.int64], model: int, random: np.random.Generator) -> bytes:
    """Encode rows for ``COPY ... (FORMAT binary)``, in which the length precedes each field."""
    row = np.dtype(
        [("fields", ">i2"), ("l1", ">i4"), ("scope", ">i8"), ("l2", ">i4"), ("unit", ">i8"), ("l3", ">i4"),
         ("model", ">i4"), ("l4", ">i4"), ("large", "u1"), ("l5", ">i4"), ("dimensions", ">i2"),
         ("unused", ">i2"), ("embedding", ">f2", (DIMENSIONS,))]
    )  # fmt: skip
    rows = np.zeros(len(units), dtype=row)
    rows["fields"], rows["model"], rows["dimensions"] = 5, model, DIMENSIONS
    for length, size in (("l1", 8), ("l2", 8), ("l3", 4), ("l4", 1), ("l5", 4 + 2 * DIMENSIONS)):
        rows[length] = size
    rows["scope"], rows["unit"] = units[:, 0], units[:, 1]
    vectors = random.standard_normal((len(units), DIMENSIONS), dtype=np.float32)
    rows["embedding"] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows.tobytes()


async def measure(
    deps: SearchDeps, contacts: int, *, concurrent: int, searches: int
) -> tuple[list[float], float]:
    """Return the milliseconds of each search, and the searches per second."""
    random = Random(3)  # noqa: S311  # no secret
    questions = _Language(1).texts(searches, QUESTION)
    left = iter([(random.randrange(contacts), question) for question in questions])
    took: list[float] = []

    async def ask() -> None:
        for number, question in left:
            start = time.perf_counter()
            result = await search.search(
                deps,
                Scope(f"tenant-{number % TENANTS}", f"contact-{number}"),
                question,
                strategy="general",
                weights=STRATEGIES["general"],
                limit=10,
            )
            took.append(1_000 * (time.perf_counter() - start))
            if not result.hits:
                raise AssertionError(f"contact {number} has no memory")

    start = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(concurrent)))
    return took, searches / (time.perf_counter() - start)


async def main(memories: int, contacts: int) -> None:
    """Build the database, measure, and print."""
    console = Console()
    embedder = Embedder(
        model="random", dimensions=DIMENSIONS, purpose="retrieval", embeddings=_RandomVectors()
    )
    with tempfile.TemporaryDirectory(prefix="ventros-bench-") as folder:
        async with (
            embedded_postgres_server(Path(folder)) as url,
            open_pool(url, DatabaseSettings(pool_min_size=10)) as pool,
        ):
            await migrate(pool)
            extensions = await open_extensions(pool)
            model = await indexer.activate_model(pool, embedder)
            deps = SearchDeps(pool=pool, extensions=extensions, embedder=embedder, model=model)
            await build(deps, memories, contacts, console.print)
            await measure(deps, contacts, concurrent=10, searches=500)
            lines = ["| at once | p50 ms | p95 ms | p99 ms | searches/s |", "|---|---|---|---|---|"]
            for concurrent in (1, 10):
                took, rate = await measure(deps, contacts, concurrent=concurrent, searches=3_000)
                values = " | ".join(f"{percentile(took, percent):.1f}" for percent in (50, 95, 99))
                lines.append(f"| {concurrent} | {values} | {rate:.0f} |")
            console.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memories", type=int, default=1_000_000)
    parser.add_argument("--contacts", type=int, default=10_000)
    given = parser.parse_args()
    asyncio.run(main(given.memories, given.contacts))
