"""The embedded memory: :class:`core.memory.Memory` on the service's own Postgres."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from core.embeddings import Embedder
from core.errors import MemoryRefused
from core.memory import (
    STRATEGIES,
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
    StrategyName,
)
from core.memory.vocabulary import Vocabulary
from core.postgres import Pool
from core.settings import MemorySettings
from memory import contexts, facts, forgetting, graph, messages, search
from memory import graph as edges
from memory import indexer as models
from memory import notes as items
from memory.database import migrate, open_extensions, translate_errors
from memory.indexer import Indexer, Progress
from memory.notes import NotePolicies, NoteSweeper
from memory.rerankers import Reranker
from memory.routing import Router
from memory.search import SearchDeps


class EmbeddedMemory:
    """Messages, facts, relations and notes, kept and found on the service's own Postgres.

    Args:
        deps: What a search needs.
        indexer: Told of new messages; None where there is no pgvector.
        policies: How long notes are kept, and how many; None: as the settings say.
        vocabulary: Which predicates and relations have one value at a time; None: as is the custom.
    """

    def __init__(
        self,
        deps: SearchDeps,
        indexer: Indexer | None,
        *,
        policies: NotePolicies | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self._deps = deps
        self._pool = deps.pool
        self._indexer = indexer
        self._policies = policies or NotePolicies.of(MemorySettings())
        self._vocabulary = vocabulary or Vocabulary()
        self._router = Router(deps.embedder)

    async def search(
        self,
        scope: Scope,
        query: str,
        *,
        strategy: StrategyName = "general",
        limit: int = 10,
        as_of: datetime | None = None,
    ) -> SearchResult:
        """See :meth:`core.memory.Memory.search`."""
        weights = STRATEGIES.get(strategy)
        if weights is None:
            raise MemoryRefused(f"strategy {strategy!r} is not known; there are {', '.join(STRATEGIES)}")
        with translate_errors():
            return await search.search(
                self._deps, scope, query, strategy=strategy, weights=weights, limit=limit, as_of=as_of
            )

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
        """See :meth:`core.memory.Memory.assemble_context`."""
        budget = contexts.budget_of(strategy, token_budget)
        found = await self.search(scope, query, strategy=strategy, limit=contexts.MOST_HITS, as_of=as_of)
        known = await self.list_facts(scope, valid_at=as_of, believed_at=as_of)
        with translate_errors():
            recent = await messages.recent_messages(
                self._pool, scope, session_id=session_id, limit=contexts.MOST_RECENT, as_of=as_of
            )
        return await contexts.assembled(found, known, recent, budget=budget)

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:
        """See :meth:`core.memory.Memory.route`."""
        messages.check_scope(scope)
        return await self._router.route(message.text)

    async def add_messages(self, scope: Scope, new: Sequence[Message]) -> int:
        """See :meth:`core.memory.Memory.add_messages`. Vectors come after."""
        with translate_errors():
            added = await messages.add_messages(self._pool, scope, new)
        if added and self._indexer:
            self._indexer.wake()
        return added

    async def upsert_facts(self, scope: Scope, new: Sequence[NewFact]) -> list[FactChange]:
        """See :meth:`core.memory.Memory.upsert_facts`."""
        with translate_errors():
            return await facts.upsert_facts(self._pool, scope, new, vocabulary=self._vocabulary)

    async def list_facts(
        self,
        scope: Scope,
        *,
        subject: str = "",
        predicate: str = "",
        valid_at: datetime | None = None,
        believed_at: datetime | None = None,
    ) -> list[Fact]:
        """See :meth:`core.memory.Memory.list_facts`."""
        with translate_errors():
            return await facts.list_facts(
                self._pool,
                scope,
                subject=subject,
                predicate=predicate,
                valid_at=valid_at,
                believed_at=believed_at,
            )

    async def fact_history(self, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:
        """See :meth:`core.memory.Memory.fact_history`."""
        with translate_errors():
            return await facts.fact_history(self._pool, scope, subject=subject, predicate=predicate)

    async def upsert_edges(self, scope: Scope, new: Sequence[Edge]) -> int:
        """See :meth:`core.memory.Memory.upsert_edges`."""
        with translate_errors():
            return await edges.upsert_edges(self._pool, scope, new, vocabulary=self._vocabulary)

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
        """See :meth:`core.memory.Memory.query_graph`."""
        with translate_errors():
            return await graph.query_graph(
                self._pool,
                scope,
                node,
                edge_type=edge_type,
                depth=depth,
                as_of=as_of,
                believed_at=believed_at,
            )

    async def remember(self, scope: Scope, text: str, *, type: NoteType, agent: str) -> Note:  # noqa: A002
        """See :meth:`core.memory.Memory.remember`."""
        with translate_errors():
            return await items.remember(
                self._pool, scope, text, kind=type, agent=agent, policies=self._policies
            )

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:
        """See :meth:`core.memory.Memory.recall`."""
        with translate_errors():
            return await items.recall(
                self._pool, scope, query, agent=agent, limit=limit, policies=self._policies
            )

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:
        """See :meth:`core.memory.Memory.recent`."""
        with translate_errors():
            return await messages.recent_messages(self._pool, scope, session_id=session_id, limit=limit)

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:
        """See :meth:`core.memory.Memory.forget`."""
        with translate_errors():
            return await forgetting.forget(
                self._pool, scope, session_id=session_id, vectors=self._deps.extensions.vector
            )

    async def progress(self) -> Progress:
        """How many units of all contacts there are, and how many wait for a vector."""
        with translate_errors():
            return await models.progress(self._pool)


@asynccontextmanager
async def open_memory(
    pool: Pool,
    embedder: Embedder,
    *,
    reranker: Reranker | None = None,
    settings: MemorySettings | None = None,
) -> AsyncIterator[EmbeddedMemory]:
    """The memory with its tables made or migrated, and its background tasks running while it is open.

    Args:
        pool: The service's pool; it is open longer than the memory.
        embedder: For retrieval; its owner closes it.
        reranker: None where reranking is off.
        settings: How long notes are kept, and how many; None: the environment's.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    await migrate(pool)
    extensions = await open_extensions(pool)
    model = await models.activate(pool, embedder) if extensions.vector else None
    indexer = Indexer(pool, embedder, model) if model else None
    deps = SearchDeps(pool=pool, extensions=extensions, embedder=embedder, model=model, reranker=reranker)
    settings = settings or MemorySettings()
    policies = NotePolicies.of(settings)
    sweeper = NoteSweeper(pool, policies, seconds=settings.sweep_seconds)
    sweeping = asyncio.create_task(sweeper.run(), name="memory-sweeper")
    indexing = asyncio.create_task(indexer.run(), name="memory-indexer") if indexer else None
    try:
        yield EmbeddedMemory(deps, indexer, policies=policies)
    finally:
        await sweeper.aclose(sweeping)
        if indexer and indexing:
            await indexer.aclose(indexing)
