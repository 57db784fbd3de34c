"""A memory with scripted results, and any memory over real gRPC."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from core.embeddings import LEXICAL, Embedder, build_embedder
from core.memory import (
    AssembledContext,
    Edge,
    ErasedCounts,
    Fact,
    FactChange,
    Graph,
    Hit,
    Memory,
    Message,
    NewFact,
    Note,
    NoteType,
    Role,
    Scope,
    SearchResult,
    StrategyChoice,
    StrategyName,
)
from core.settings import EmbeddingSettings, MemorySettings, Settings
from memory.grpc_client import RemoteMemory, connect_memory
from memory.grpc_server import serve_memory

T = TypeVar("T")

ANA = Scope("acme", "ana")
NOON = datetime(2026, 3, 14, 12, 0, 0, 123456, tzinfo=UTC)


def lexical_embedder() -> Embedder:
    """Create an embedder that loads no model."""
    return build_embedder(Settings.load(embeddings=EmbeddingSettings(model=LEXICAL)), "retrieval")


def make_message(
    id: str,  # noqa: A002 - as the field is named
    text: str = "hello",
    *,
    minutes: float = 0,
    session_id: str = "s1",
    role: Role = "customer",
) -> Message:
    """Create a message, ``minutes`` minutes after :data:`NOON`."""
    at = NOON + timedelta(minutes=minutes)
    return Message(id=id, role=role, text=text, at=at, session_id=session_id, channel_id="whatsapp")


@dataclass
class ScriptedMemory:
    """Returns scripted results, and records its calls.

    Attributes:
        answers: The result of each method: a value, or an error to raise.
        faults: Errors that the first calls raise, whatever the method.
        calls: Method, positional and keyword arguments of each call.
        gate: Calls wait for this event, if there is one.
        entered: Set when a call arrives.
        cancelled: Methods whose calls were cancelled while they waited.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    faults: deque[Exception] = field(default_factory=deque)
    calls: list[tuple[str, tuple[Any, ...], Mapping[str, Any]]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: list[str] = field(default_factory=list)

    async def search(
        self,
        scope: Scope,
        query: str,
        *,
        strategy: StrategyName = "general",
        limit: int = 10,
        as_of: datetime | None = None,
    ) -> SearchResult:
        named = {"strategy": strategy, "limit": limit, "as_of": as_of}
        usual = SearchResult(hits=(), strategy=strategy, model="none")
        return await self._answer("search", (scope, query), named, usual)

    async def assemble_context(
        self,
        scope: Scope,
        query: str,
        *,
        strategy: StrategyName = "general",
        session_id: str = "",
        token_budget: int | None = None,
        as_of: datetime | None = None,
    ) -> AssembledContext:
        named = {
            "strategy": strategy,
            "session_id": session_id,
            "token_budget": token_budget,
            "as_of": as_of,
        }
        usual = AssembledContext(
            text="", tokens=0, token_budget=1, strategy=strategy, sections=(), hits=(), facts=()
        )
        return await self._answer("assemble_context", (scope, query), named, usual)

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:
        usual = StrategyChoice(strategy="general", confidence=0.0)
        return await self._answer("route", (scope, message), {}, usual)

    async def query_graph(
        self,
        scope: Scope,
        node: str,
        *,
        edge_type: str = "",
        depth: int = 1,
        as_of: datetime | None = None,
        believed_at: datetime | None = None,
    ) -> Graph:
        named = {"edge_type": edge_type, "depth": depth, "as_of": as_of, "believed_at": believed_at}
        return await self._answer("query_graph", (scope, node), named, Graph(nodes=(), edges=()))

    async def add_messages(self, scope: Scope, messages: Sequence[Message]) -> int:
        return await self._answer("add_messages", (scope, list(messages)), {}, len(messages))

    async def upsert_facts(self, scope: Scope, facts: Sequence[NewFact]) -> list[FactChange]:
        return await self._answer("upsert_facts", (scope, list(facts)), {}, [])

    async def list_facts(
        self,
        scope: Scope,
        *,
        subject: str = "",
        predicate: str = "",
        valid_at: datetime | None = None,
        believed_at: datetime | None = None,
    ) -> list[Fact]:
        named = {
            "subject": subject,
            "predicate": predicate,
            "valid_at": valid_at,
            "believed_at": believed_at,
        }
        return await self._answer("list_facts", (scope,), named, [])

    async def fact_history(self, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:
        return await self._answer("fact_history", (scope,), {"subject": subject, "predicate": predicate}, [])

    async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:
        return await self._answer("upsert_edges", (scope, list(edges)), {}, len(edges))

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:
        return await self._answer("recent", (scope,), {"session_id": session_id, "limit": limit}, [])

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:
        return await self._answer("forget", (scope,), {"session_id": session_id}, ErasedCounts())

    async def remember(
        self,
        scope: Scope,
        text: str,
        *,
        type: NoteType,  # noqa: A002
        agent: str,
        key: str = "",
    ) -> Note:
        usual = Note(id="1", type=type, agent=agent, text=text, remembered_at=NOON, uses=0, key=key)
        named = {"type": type, "agent": agent, "key": key}
        return await self._answer("remember", (scope, text), named, usual)

    async def get_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> Note | None:  # noqa: A002
        return await self._answer("get_note", (scope, key), {"type": type, "agent": agent}, None)

    async def delete_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> bool:  # noqa: A002
        return await self._answer("delete_note", (scope, key), {"type": type, "agent": agent}, False)

    async def check_health(self) -> None:
        """See :meth:`core.memory.Memory.check_health`."""

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:
        return await self._answer("recall", (scope, query), {"agent": agent, "limit": limit}, [])

    async def list_notes(
        self,
        scope: Scope,
        *,
        type: NoteType | None = None,  # noqa: A002
        agent: str = "",
        limit: int = 100,
    ) -> list[Note]:
        return await self._answer("list_notes", (scope,), {"type": type, "agent": agent, "limit": limit}, [])

    async def _answer(self, name: str, positional: tuple[Any, ...], named: Mapping[str, Any], usual: T) -> T:
        self.calls.append((name, positional, named))
        self.entered.set()
        if self.gate:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
        if self.faults:
            raise self.faults.popleft()
        answer: T = self.answers.get(name, usual)
        if isinstance(answer, Exception):
            raise answer
        return answer


def memory_settings(**settings: Any) -> MemorySettings:
    """Return settings for a server on a free port, and for a client that tolerates a slow machine."""
    return MemorySettings(**{"serve_port": 0, "grpc_timeout_seconds": 60, **settings})


@asynccontextmanager
async def over_grpc(memory: Memory, **settings: Any) -> AsyncIterator[RemoteMemory]:
    """Serve the memory, and call it through a real server and client."""
    async with (
        serve_memory(memory, memory_settings(**settings), grace_seconds=0) as address,
        connect_memory(memory_settings(grpc_target=address, **settings)) as remote,
    ):
        yield remote
