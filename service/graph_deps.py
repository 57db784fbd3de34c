"""Open what agents reach, and compile the graphs with it: memory, the CRM, its articles, tools and agents."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import httpx
from fastapi import FastAPI
from langgraph.types import Checkpointer

from checkpoints.cache import compute_cache_version, open_cache
from core.embeddings import VectorCache, build_embedder
from core.errors import CrmError, EmbeddingError, MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Memory
from core.models import ChatModels
from core.postgres import Pool
from core.settings import Settings
from core.tasks import Scheduler, Supervisor, cancel_and_wait, periodic
from dev_crm.app import create_crm
from dev_crm.migrations import migrate
from dev_crm.reader import open_reader
from graphs.agent_registry import build_agent_registry
from graphs.caching import is_cacheable
from graphs.registry import REGISTRY
from memory.embedded import open_configured_memory
from memory.grpc_client import RemoteMemory
from nodes.coordinator.router import AgentRegistry
from nodes.deps import Deps
from service.outbox.facts import announce_facts
from service.runs.request import CompiledGraph
from service.version import VERSION
from tools.catalogue import crm_tools, memory_tools
from tools.crm.client import CrmClient, create_http_client
from tools.knowledge_base import ArticleSync, KnowledgeBase

log = get_logger(__name__)


async def open_memory(
    stack: AsyncExitStack,
    settings: Settings,
    pool: Pool,
    *,
    tasks: Supervisor,
    scheduler: Scheduler,
    vectors: VectorCache,
) -> Memory:
    """Open the memory of the settings, with its embedding model."""
    embedder = build_embedder(settings, "retrieval", cache=vectors)
    stack.push_async_callback(embedder.aclose)
    memory = await stack.enter_async_context(
        open_configured_memory(settings, pool, embedder, tasks, scheduler)
    )
    if isinstance(memory, RemoteMemory):
        # The embedded memory tells of facts in its own transactions.
        memory.on_upserted = partial(announce_facts, pool)
    return memory


async def create_development_crm(settings: Settings, pool: Pool) -> FastAPI | None:
    """Return the development CRM with its tables; ``None``: a real CRM is set up."""
    if settings.crm.api_base:
        return None
    await migrate(pool)
    return create_crm(pool, settings.crm.api_key)


async def name_databases(settings: Settings, pool: Pool) -> Mapping[str, str]:
    """Return what workflows read: the settings' databases, and ``crm``, which is the development CRM's.

    The latter is there without a setting only on the embedded server, which trusts its socket; elsewhere the
    operator chooses a role and its password.
    """
    databases = settings.workflows.connection_urls
    if settings.crm.api_base or settings.database.url or "crm" in databases:
        return databases
    return {"crm": await open_reader(pool), **databases}


async def open_crm_client(
    stack: AsyncExitStack, settings: Settings, development_crm: FastAPI | None
) -> httpx.AsyncClient:
    """Open the client of the CRM, which calls the development CRM within the process."""
    transport = httpx.ASGITransport(development_crm, raise_app_exceptions=False) if development_crm else None
    base_url = settings.crm.api_base or "http://development-crm"
    return await stack.enter_async_context(create_http_client(settings.crm, base_url, transport=transport))


def build_deps(
    settings: Settings, models: ChatModels, crm: CrmClient, memory: Memory, vectors: VectorCache
) -> Deps:
    """Return the live dependencies of the graphs, without the engine of workflows."""
    # An index that is no longer synchronised may hold articles that the CRM has deleted.
    knowledge = KnowledgeBase(crm, memory if settings.crm.articles_sync_seconds else None)
    risk = settings.approvals.message_risk
    tools = {
        **crm_tools(crm, approve_messages_from=risk, memory=memory, knowledge=knowledge),
        **memory_tools(memory),
    }
    return Deps(
        models=models,
        tools=tools,
        crm=crm,
        agents=build_agent_registry(settings, tools, vectors=vectors),
        memory=memory,
        knowledge=knowledge,
        context_tokens=settings.context.tokens,
        review_unsupported=settings.approvals.unsupported == "review",
    )


def start_warming(stack: AsyncExitStack, agents: AgentRegistry) -> asyncio.Task[None]:
    """Begin to teach the router the agents' examples; neither the start nor a message waits for it."""
    stack.push_async_callback(agents.router.aclose)
    warming = asyncio.create_task(_warm(agents))
    stack.push_async_callback(cancel_and_wait, warming)
    return warming


async def supervise_article_sync(
    stack: AsyncExitStack,
    tasks: Supervisor,
    sync: ArticleSync,
    warming: asyncio.Task[None],
    settings: Settings,
) -> None:
    """Synchronise the articles periodically, once the router has embedded the agents' examples."""

    async def run() -> None:
        await asyncio.wait([warming])
        await periodic(
            "article-sync",
            sync.run_pass,
            seconds=settings.crm.articles_sync_seconds,
            at_once=True,
            unavailable=(CrmError, MemoryUnavailable, MemoryRefused),
        )

    if settings.crm.articles_sync_seconds:
        await stack.enter_async_context(tasks.supervise("article-sync", run))


async def compile_graphs(
    stack: AsyncExitStack, settings: Settings, deps: Deps, saver: Checkpointer
) -> Mapping[str, CompiledGraph]:
    """Compile every graph of the registry with the saver and the cache of node results."""
    built = {spec.name: spec.build(deps) for spec in REGISTRY.values()}
    cache = await stack.enter_async_context(
        open_cache(
            settings.cache,
            settings.redis,
            version=compute_cache_version(VERSION, built),
            is_cacheable=is_cacheable,
        )
    )
    return {name: graph.compile(checkpointer=saver, cache=cache, name=name) for name, graph in built.items()}


async def _warm(agents: AgentRegistry) -> None:
    """Have the router learn the agents' examples."""
    try:
        await agents.router.prepare()
    except EmbeddingError as error:
        log.warning("router_not_ready", reason=error.message)
