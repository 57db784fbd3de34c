"""The embedded memory, on the service's own Postgres, and the choice between it and a memory service."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial

from core.embeddings import Embedder
from core.errors import MemoryRefused, MemoryUnavailable
from core.memory import (
    STRATEGIES,
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
    Scope,
    SearchResult,
    StrategyChoice,
    StrategyName,
)
from core.memory.vocabulary import Vocabulary
from core.postgres import Pool
from core.settings import MemorySettings, Settings
from core.tasks import Scheduler, Supervisor, periodic
from memory import contexts, facts, graph, messages, notes, search
from memory.database import migrate, open_extensions, translate_errors
from memory.grpc_client import connect_memory
from memory.indexer import Indexer, Progress, activate_model, load_progress
from memory.notes import NotePolicies, NoteSweeper
from memory.rerankers import Reranker, open_reranker
from memory.routing import StrategyRouter
from memory.search import SearchDeps

# Fails where the tables are not there.
HEALTH_SQL = "SELECT FROM memory.units LIMIT 1"


class EmbeddedMemory:
    """A memory on the service's own Postgres.

    Args:
        deps: What a search needs.
        indexer: Is woken for new messages; None without pgvector.
        policies: How long notes are kept, and how many; None for those of the settings.
        vocabulary: Which predicates and relations have one value at a time; None for the default.
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
        self._policies = policies or NotePolicies.from_settings(MemorySettings())
        self._vocabulary = vocabulary or Vocabulary()
        self._router = StrategyRouter(deps.embedder)

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
        budget = contexts.get_budget(strategy, token_budget)
        result = await self.search(scope, query, strategy=strategy, limit=contexts.MAX_HITS, as_of=as_of)
        valid_facts = await self.list_facts(scope, valid_at=as_of, believed_at=as_of)
        with translate_errors():
            recent = await messages.list_recent_messages(
                self._pool, scope, session_id=session_id, limit=contexts.MAX_RECENT, as_of=as_of
            )
        return await contexts.assemble_context(result, valid_facts, recent, budget=budget)

    async def check_health(self) -> None:
        """See :meth:`core.memory.Memory.check_health`."""
        with translate_errors():
            async with self._pool.connection() as connection:
                await connection.execute(HEALTH_SQL)

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:
        """See :meth:`core.memory.Memory.route`."""
        messages.check_scope(scope)
        return await self._router.route(message.text)

    async def add_messages(self, scope: Scope, new: Sequence[Message]) -> int:
        """See :meth:`core.memory.Memory.add_messages`. The indexer makes their vectors later."""
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
            return await graph.upsert_edges(self._pool, scope, new, vocabulary=self._vocabulary)

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

    async def remember(
        self,
        scope: Scope,
        text: str,
        *,
        type: NoteType,  # noqa: A002
        agent: str,
        key: str = "",
    ) -> Note:
        """See :meth:`core.memory.Memory.remember`."""
        with translate_errors():
            return await notes.remember(
                self._pool, scope, text, kind=type, agent=agent, key=key, policies=self._policies
            )

    async def get_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> Note | None:  # noqa: A002
        """See :meth:`core.memory.Memory.get_note`."""
        with translate_errors():
            return await notes.get_note(
                self._pool, scope, key, kind=type, agent=agent, policies=self._policies
            )

    async def delete_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> bool:  # noqa: A002
        """See :meth:`core.memory.Memory.delete_note`."""
        with translate_errors():
            return await notes.delete_note(
                self._pool, scope, key, kind=type, agent=agent, policies=self._policies
            )

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:
        """See :meth:`core.memory.Memory.recall`."""
        with translate_errors():
            return await notes.recall(
                self._pool, scope, query, agent=agent, limit=limit, policies=self._policies
            )

    async def list_notes(
        self,
        scope: Scope,
        *,
        type: NoteType | None = None,  # noqa: A002
        agent: str = "",
        limit: int = 100,
    ) -> list[Note]:
        """See :meth:`core.memory.Memory.list_notes`."""
        with translate_errors():
            return await notes.list_notes(
                self._pool, scope, kind=type, agent=agent, limit=limit, policies=self._policies
            )

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:
        """See :meth:`core.memory.Memory.recent`."""
        with translate_errors():
            return await messages.list_recent_messages(self._pool, scope, session_id=session_id, limit=limit)

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:
        """See :meth:`core.memory.Memory.forget`."""
        with translate_errors():
            return await messages.forget(
                self._pool, scope, session_id=session_id, vectors=self._deps.extensions.vector
            )

    async def progress(self) -> Progress:
        """Return how many units of all contacts there are, and how many wait for a vector."""
        with translate_errors():
            return await load_progress(self._pool)


@asynccontextmanager
async def open_configured_memory(
    settings: Settings,
    pool: Pool,
    embedder: Embedder,
    tasks: Supervisor | None = None,
    scheduler: Scheduler | None = None,
) -> AsyncIterator[Memory]:
    """Open the memory service that ``MEMORY_GRPC_TARGET`` names, or else the embedded memory.

    A memory service may be unreachable; its calls then raise :class:`~core.errors.MemoryUnavailable`.

    Args:
        settings: The address of the memory service, and how the embedded memory works.
        pool: The service's pool, for the embedded memory.
        embedder: For the embedded memory; its owner closes it.
        tasks: Runs the embedded memory's background tasks.
        scheduler: Has its sweeps repeated; None for a background task of its own.

    Raises:
        StartupError: The file of certificate authorities cannot be read.
        psycopg.Error: The embedded memory's database cannot be reached, or refuses.
    """
    if settings.memory.grpc_target:
        async with connect_memory(settings.memory) as memory:
            yield memory
    else:
        async with open_embedded(settings, pool, embedder, tasks, scheduler) as embedded:
            yield embedded


@asynccontextmanager
async def open_embedded(
    settings: Settings,
    pool: Pool,
    embedder: Embedder,
    tasks: Supervisor | None = None,
    scheduler: Scheduler | None = None,
) -> AsyncIterator[EmbeddedMemory]:
    """Open the embedded memory with the reranker of the settings; see :func:`open_configured_memory`."""
    async with (
        open_reranker(settings) as reranker,
        open_memory(
            pool, embedder, reranker=reranker, settings=settings.memory, tasks=tasks, scheduler=scheduler
        ) as memory,
    ):
        yield memory


@asynccontextmanager
async def open_memory(
    pool: Pool,
    embedder: Embedder,
    *,
    reranker: Reranker | None = None,
    settings: MemorySettings | None = None,
    tasks: Supervisor | None = None,
    scheduler: Scheduler | None = None,
) -> AsyncIterator[EmbeddedMemory]:
    """Open the embedded memory: migrate its tables, and run its background tasks until the context closes.

    Args:
        pool: The service's pool; stays open longer than the memory.
        embedder: For retrieval; its owner closes it.
        reranker: None if reranking is off.
        settings: How long notes are kept, and how many; None for those of the environment.
        tasks: Runs the background tasks; None for a supervisor of its own.
        scheduler: Has the sweeps repeated; None for a background task.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    await migrate(pool)
    extensions = await open_extensions(pool)
    model = await activate_model(pool, embedder) if extensions.vector else None
    indexer = Indexer(pool, embedder, model) if model else None
    deps = SearchDeps(pool=pool, extensions=extensions, embedder=embedder, model=model, reranker=reranker)
    settings = settings or MemorySettings()
    policies = NotePolicies.from_settings(settings)
    sweep = NoteSweeper(pool, policies).sweep
    tasks = tasks or Supervisor()
    async with AsyncExitStack() as stack:
        if scheduler:
            scheduler.every("memory-sweep", sweep, seconds=settings.sweep_seconds)
        else:
            sweeper = partial(
                periodic,
                "memory-sweep",
                sweep,
                seconds=settings.sweep_seconds,
                unavailable=(MemoryUnavailable,),
            )
            await stack.enter_async_context(tasks.supervise("memory-sweep", sweeper))
        if indexer:
            await stack.enter_async_context(tasks.supervise("memory-indexer", indexer.run))
        yield EmbeddedMemory(deps, indexer, policies=policies)
