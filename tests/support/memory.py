"""Helpers for tests of the memory: a fast embedding model that can fail, and messages."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from langchain_core.embeddings import Embeddings
from typing_extensions import override

from core.embeddings import Embedder
from core.embeddings.local import LEXICAL_DIMENSIONS, HashedNgrams
from core.memory import Message, Role, Scope, SearchResult
from memory.embedded import EmbeddedMemory

ANA = Scope("acme", "ana")
START = datetime(2026, 5, 7, 9, tzinfo=UTC)


class Model(Embeddings):
    """Hashed n-grams that fail while ``down``, and count the texts they embed."""

    def __init__(self, dimensions: int = LEXICAL_DIMENSIONS) -> None:
        self.down = False
        self.embedded = 0
        self._dimensions = dimensions
        self._ngrams = HashedNgrams()

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.down:
            raise ConnectionError("down")
        self.embedded += len(texts)
        return [vector[: self._dimensions] for vector in self._ngrams.embed_documents(texts)]

    @override
    def embed_query(self, text: str) -> list[float]:
        if self.down:
            raise ConnectionError("down")
        return self._ngrams.embed_query(text)[: self._dimensions]


def embedder(
    model: Model | None = None, *, name: str = "test:ngrams", dimensions: int = LEXICAL_DIMENSIONS
) -> Embedder:
    """Create an embedder over the model."""
    return Embedder(
        model=name, dimensions=dimensions, purpose="retrieval", embeddings=model or Model(dimensions)
    )


def make_message(
    text: str,
    *,
    id: str = "",  # noqa: A002  # as the field is called
    minute: int = 0,
    session: str = "s1",
    role: Role = "customer",
) -> Message:
    """Create a message, ``minute`` minutes after :data:`START`."""
    return Message(
        id=id or f"{session}-{minute}",
        role=role,
        text=text,
        at=START + timedelta(minutes=minute),
        session_id=session,
    )


def conversation(texts: Sequence[str], *, session: str = "s1") -> list[Message]:
    """Create messages a minute apart."""
    return [make_message(text, minute=minute, session=session) for minute, text in enumerate(texts)]


async def all_embedded(memory: EmbeddedMemory) -> None:
    """Wait until no unit waits for a vector; pytest's time limit ends a wait that never will."""
    while (await memory.progress()).waiting:  # noqa: ASYNC110  # another process may do the work
        await asyncio.sleep(0.005)


def ids(result: SearchResult, retriever: str = "") -> list[str]:
    """Return the ids that a retriever found; without one, those that were found for their content."""
    return [
        hit.id
        for hit in result.hits
        if (any(named.retriever == retriever for named in hit.ranks) if retriever else hit.score > 0)
    ]
