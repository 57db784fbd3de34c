"""The memory port. Graphs, nodes and tools know this, and not who is behind it."""

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
    """What is remembered of contacts.

    Every method raises :class:`~core.errors.MemoryUnavailable` when the memory cannot be reached, and
    :class:`~core.errors.MemoryRefused` when what it is asked does not fit.
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
        """What the contact's memory has on a question.

        Args:
            scope: Whose memory.
            query: The question, in words.
            strategy: How the ways of searching are weighed.
            limit: Most hits, besides the newest messages.
            as_of: As the memory was then: nothing said later.
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
        """What a prompt should be told of the contact: newest messages, memories, summaries and facts.

        Args:
            scope: Whose memory.
            query: The question, in words.
            strategy: How the ways of searching are weighed.
            session_id: The conversation whose newest messages are told; empty: those of all.
            token_budget: Most tokens; None: the strategy's.
            as_of: As the memory was then.
        """
        ...

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:
        """By which strategy to search for what a message asks, told by its text alone.

        Args:
            scope: Whose message.
            message: What was said.
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
        """What is within ``depth`` edges of the node whose key is ``node``.

        Args:
            scope: Whose memory.
            node: Its key.
            edge_type: Follow edges of this type alone; all, where none is named.
            depth: Edges to follow, in either direction.
            as_of: As things were then; None: now.
            believed_at: As it was believed then; None: now.
        """
        ...

    async def add_messages(self, scope: Scope, messages: Sequence[Message]) -> int:
        """Remember messages; durable when it returns.

        Returns:
            How many were new: one whose id is known is left as it is.
        """
        ...

    async def upsert_facts(self, scope: Scope, facts: Sequence[NewFact]) -> list[FactChange]:
        """Remember facts, and close those they take the place of.

        What a message says twice counts once, so a call may be repeated.

        Returns:
            What became of each, in order.
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
        """Facts that held at one time, as they were believed at another; now, where none is given."""
        ...

    async def fact_history(self, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:
        """Everything ever believed, oldest belief first, with what ended the beliefs that ended."""
        ...

    async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:
        """Remember how things are related; returns how many edges were new or changed."""
        ...

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:
        """The newest messages, oldest of them first; of one session, where it is named."""
        ...

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:
        """Erase what one session left, or everything about the contact where none is named."""
        ...

    async def remember(self, scope: Scope, text: str, *, type: NoteType, agent: str) -> Note:  # noqa: A002
        """Keep a note for as long as its type says; the same note again is kept anew, once.

        Args:
            scope: Whose memory.
            text: The note.
            type: How long it is kept, and who sees it.
            agent: Who writes it.
        """
        ...

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:
        """An agent's own notes and the shared ones that have to do with a question, best first.

        Args:
            scope: Whose memory.
            query: The question; where it is empty, the newest notes come.
            agent: Who asks.
            limit: Most notes. Those that come count as used once more.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoMemory:
    """A :class:`core.memory.Memory` that keeps nothing; for Studio, diagrams and tests.

    Attributes:
        reason: Why there is none; what each call says.
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
        """Nothing is found."""
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
        """Nothing is known."""
        self._refuse()

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:  # noqa: ARG002
        """Nothing is known."""
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
        """Nothing is found."""
        self._refuse()

    async def add_messages(self, scope: Scope, messages: Sequence[Message]) -> int:  # noqa: ARG002
        """Nothing is kept."""
        self._refuse()

    async def upsert_facts(self, scope: Scope, facts: Sequence[NewFact]) -> list[FactChange]:  # noqa: ARG002
        """Nothing is kept."""
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
        """Nothing is known."""
        self._refuse()

    async def fact_history(self, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:  # noqa: ARG002
        """Nothing is known."""
        self._refuse()

    async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:  # noqa: ARG002
        """Nothing is kept."""
        self._refuse()

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:  # noqa: ARG002
        """Nothing is known."""
        self._refuse()

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:  # noqa: ARG002
        """Nothing was kept, but that is not known of the memory that is missing."""
        self._refuse()

    async def remember(self, scope: Scope, text: str, *, type: NoteType, agent: str) -> Note:  # noqa: A002, ARG002
        """Nothing is kept."""
        self._refuse()

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:  # noqa: ARG002
        """Nothing is known."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise MemoryUnavailable(self.reason)
