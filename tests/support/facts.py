"""The embedded memory for tests that do not search: its tables, without vectors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from core.memory import Message, NewFact
from core.postgres import Pool
from memory.database import Extensions, migrate
from memory.embedded import EmbeddedMemory
from memory.search import SearchDeps
from tests.support.memory import ANA, embedder

__all__ = ["ANA", "JANUARY", "fact", "fact_memory", "make_message"]

JANUARY = datetime(2026, 1, 10, 9, tzinfo=UTC)


@asynccontextmanager
async def fact_memory(pool: Pool) -> AsyncIterator[EmbeddedMemory]:
    """Open the memory without vectors and background tasks."""
    await migrate(pool)
    deps = SearchDeps(
        pool=pool,
        extensions=Extensions(vector=False, trigrams=False),
        embedder=embedder(),
        model=None,
    )
    yield EmbeddedMemory(deps, None)


def make_message(number: int, text: str, *, day: int = 0, session: str = "s1", id: str = "") -> Message:  # noqa: A002
    """Create a customer's message, ``day`` days after :data:`JANUARY`."""
    return Message(
        id=id or f"m{number}",
        role="customer",
        text=text,
        at=JANUARY + timedelta(days=day),
        session_id=session,
    )


def fact(predicate: str, value: str, message: str, **more: object) -> NewFact:
    """Create a fact about the contact that a message states."""
    fields: dict[str, object] = {"subject": "contact", "confidence": 0.8, **more}
    return NewFact(predicate=predicate, object=value, source_message_id=message, **fields)  # type: ignore[arg-type]
