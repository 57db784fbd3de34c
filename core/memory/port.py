"""The memory port that graphs, nodes and tools use, and the implementation that holds nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, Protocol

from core.errors import MemoryUnavailable
from core.memory.strategies import StrategyName
from core.memory.values import (
    AssembledContext,
    Edge,
    ErasedCounts,
    Fact,
    FactChange,
    Graph,
    Hit,
    Message,
    NewFact,
    Note,
    NoteType,
    Scope,
    SearchResult,
    StrategyChoice,
)


class Memory(Protocol):
    """Memory of contacts: messages, facts, relations and notes.

    Every method raises :class:`~core.errors.MemoryUnavailable` when the memory cannot be reached, and
    :class:`~core.errors.MemoryRefused` when an argument is not valid.
    """

    async def search(
        self,
        scope: Scope,
        query: str,
        *,
        strategy: StrategyName = "general",
        limit: int = 10,
        as_of: datetime | None = None,
    ) -> SearchResult:
        """Search the contact's memory for a question.

        Args:
            scope: The contact.
            query: The question, in words.
            strategy: How the retrievers are weighted.
            limit: Most hits, besides the newest messages.
            as_of: Search the memory as it was then, without anything newer. ``None``: as it is now.
        """
        ...

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
        """Assemble context on the contact for a prompt: newest messages, memories, summaries and facts.

        Args:
            scope: The contact.
            query: The question, in words.
            strategy: How the retrievers are weighted.
            session_id: The conversation whose newest messages are included; empty: those of all.
            token_budget: Most tokens. ``None``: the strategy's.
            as_of: Use the memory as it was then. ``None``: as it is now.
        """
        ...

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:
        """Choose the retrieval strategy for a message by its text alone.

        Args:
            scope: The contact who wrote it.
            message: The message.
        """
        ...

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
        """Return everything within ``depth`` edges of a node.

        Args:
            scope: The contact.
            node: The key of the node.
            edge_type: Follow only edges of this type; empty: all.
            depth: Edges to follow, in either direction.
            as_of: Valid time: edges that held then. ``None``: now.
            believed_at: Transaction time: what was recorded by then. ``None``: now.
        """
        ...

    async def add_messages(self, scope: Scope, messages: Sequence[Message]) -> int:
        """Store messages durably.

        Returns:
            How many were new. A message whose id is known is left unchanged.
        """
        ...

    async def upsert_facts(self, scope: Scope, facts: Sequence[NewFact]) -> list[FactChange]:
        """Store facts, and close those that they replace.

        The call may be repeated: a fact that was learnt from the same message before is not stored again.

        Returns:
            What was done with each fact, in order.
        """
        ...

    async def list_facts(
        self,
        scope: Scope,
        *,
        subject: str = "",
        predicate: str = "",
        valid_at: datetime | None = None,
        believed_at: datetime | None = None,
    ) -> list[Fact]:
        """Return the facts valid at one time as they were believed at another; both default to now."""
        ...

    async def fact_history(self, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:
        """Return every fact ever believed, oldest belief first, with what superseded it."""
        ...

    async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:
        """Store relations, and return how many edges were new or changed."""
        ...

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:
        """Return the newest messages, the oldest of them first; of one session if it is named."""
        ...

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:
        """Erase what was stored of one session, or everything about the contact if none is named."""
        ...

    async def remember(
        self,
        scope: Scope,
        text: str,
        *,
        type: NoteType,  # noqa: A002
        agent: str,
        key: str = "",
    ) -> Note:
        """Store a note. Storing the same note again renews it.

        Args:
            scope: The contact.
            text: The note.
            type: How long the note is kept, and which agents see it.
            agent: The agent that writes it.
            key: Replaces the note that the agent keeps under this key and type; empty: a note without a key.
        """
        ...

    async def get_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> Note | None:  # noqa: A002
        """Return the note that an agent keeps under a key, and count the use; None if there is none."""
        ...

    async def delete_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> bool:  # noqa: A002
        """Delete the note that an agent keeps under a key, and return whether there was one."""
        ...

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:
        """Return the agent's own notes and the shared ones that match a question, best first.

        Args:
            scope: The contact.
            query: The question; if it is empty, the newest notes are returned.
            agent: The agent that asks.
            limit: Most notes. The use count of those returned goes up by one.
        """
        ...

    async def list_notes(
        self,
        scope: Scope,
        *,
        type: NoteType | None = None,  # noqa: A002
        agent: str = "",
        limit: int = 100,
    ) -> list[Note]:
        """Return the notes of all agents, the newest first, without counting a use.

        Args:
            scope: The contact.
            type: Notes of this type alone; ``None``: of any.
            agent: Notes of this agent alone; empty: of all.
            limit: Most notes.
        """
        ...

    async def check_health(self) -> None:
        """Return if the memory can be used now."""
        ...


@dataclass(frozen=True, slots=True)
class NoMemory:
    """A :class:`core.memory.Memory` that is always unavailable; for Studio, diagrams and tests.

    Attributes:
        reason: Why there is no memory; the message of the error that every call raises.
    """

    reason: str = "there is no memory here"

    async def search(
        self,
        scope: Scope,  # noqa: ARG002
        query: str,  # noqa: ARG002
        *,
        strategy: StrategyName = "general",  # noqa: ARG002
        limit: int = 10,  # noqa: ARG002
        as_of: datetime | None = None,  # noqa: ARG002
    ) -> SearchResult:
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def assemble_context(
        self,
        scope: Scope,  # noqa: ARG002
        query: str,  # noqa: ARG002
        *,
        strategy: StrategyName = "general",  # noqa: ARG002
        session_id: str = "",  # noqa: ARG002
        token_budget: int | None = None,  # noqa: ARG002
        as_of: datetime | None = None,  # noqa: ARG002
    ) -> AssembledContext:
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:  # noqa: ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def query_graph(
        self,
        scope: Scope,  # noqa: ARG002
        node: str,  # noqa: ARG002
        *,
        edge_type: str = "",  # noqa: ARG002
        depth: int = 1,  # noqa: ARG002
        as_of: datetime | None = None,  # noqa: ARG002
        believed_at: datetime | None = None,  # noqa: ARG002
    ) -> Graph:
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def add_messages(self, scope: Scope, messages: Sequence[Message]) -> int:  # noqa: ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def upsert_facts(self, scope: Scope, facts: Sequence[NewFact]) -> list[FactChange]:  # noqa: ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def list_facts(
        self,
        scope: Scope,  # noqa: ARG002
        *,
        subject: str = "",  # noqa: ARG002
        predicate: str = "",  # noqa: ARG002
        valid_at: datetime | None = None,  # noqa: ARG002
        believed_at: datetime | None = None,  # noqa: ARG002
    ) -> list[Fact]:
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def fact_history(self, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:  # noqa: ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:  # noqa: ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:  # noqa: ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:  # noqa: ARG002
        """Raise :class:`MemoryUnavailable`: what the missing memory holds is unknown."""
        self._refuse()

    async def remember(
        self,
        scope: Scope,  # noqa: ARG002
        text: str,  # noqa: ARG002
        *,
        type: NoteType,  # noqa: A002, ARG002
        agent: str,  # noqa: ARG002
        key: str = "",  # noqa: ARG002
    ) -> Note:
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def get_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> Note | None:  # noqa: A002, ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def delete_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> bool:  # noqa: A002, ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:  # noqa: ARG002
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def list_notes(
        self,
        scope: Scope,  # noqa: ARG002
        *,
        type: NoteType | None = None,  # noqa: A002, ARG002
        agent: str = "",  # noqa: ARG002
        limit: int = 100,  # noqa: ARG002
    ) -> list[Note]:
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    async def check_health(self) -> None:
        """Raise :class:`MemoryUnavailable`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise MemoryUnavailable(self.reason)
