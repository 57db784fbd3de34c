"""Where there is no memory: every call says so, as one to a memory that is away does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

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
