"""Everything that lives as long as the service: opened in order, closed in reverse."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI
from langgraph.graph.state import CompiledStateGraph

from api.erasure import Erasure
from api.lifecycle import Lifecycle
from api.retention import retention
from api.runs import Runs
from api.session_keeper import SessionKeeper
from api.telemetry.gauges import add_gauges
from api.telemetry.metrics import RunMeter, ServiceMetrics
from api.telemetry.tracing import Tracing, open_tracing
from checkpoints.availability import watching
from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import WatchedPool, open_pool
from checkpoints.saver import open_saver
from core.embeddings import embeddings
from core.errors import EmbeddingError
from core.logging import get_logger
from core.memory import Memory
from core.metrics import BACKGROUND, metered
from core.models import ChatModels, ModelInfo, chat_models
from core.postgres import Pool
from core.settings import Settings
from crm.app import create_crm
from crm.migrations import migrate
from graphs.registry import REGISTRY
from graphs.roster import specialised_agents
from memory.opening import open_memory
from nodes.coordinator.roster import Roster
from nodes.deps import Deps
from sessions.migrations import migrate as migrate_sessions
from sessions.store import SessionStore
from tools.catalogue import crm_tools, memory_tools
from tools.crm_client import CrmClient, crm_http_client

log = get_logger(__name__)

CompiledGraph = CompiledStateGraph[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The live things HTTP needs.

    Attributes:
        settings: As the service was started with.
        lifecycle: Whether it is about to stop.
        pool: The one connection pool.
        runs: Runs in progress.
        graphs: The compiled graphs by name.
        model: Which model answers, and why.
        roster: The specialised agents.
        erasure: Takes threads out for good.
        memory: What is remembered of contacts.
        sessions: Which conversation a message belongs to.
        warming: Done when the router has learned the agents' examples, or could not.
        keeper: Closes sessions and sums them up.
        metrics: What is counted.
        tracing: Begins the spans of requests and runs.
        development_crm: The app to mount at ``/crm``, when no real CRM is set.
    """

    settings: Settings
    lifecycle: Lifecycle
    pool: WatchedPool
    runs: Runs
    graphs: Mapping[str, CompiledGraph]
    model: ModelInfo
    roster: Roster
    erasure: Erasure
    memory: Memory
    sessions: SessionStore
    warming: asyncio.Task[None]
    keeper: SessionKeeper
    metrics: ServiceMetrics
    tracing: Tracing
    development_crm: FastAPI | None


@asynccontextmanager
async def open_service(settings: Settings, *, models: ChatModels | None = None) -> AsyncIterator[Service]:
    """Open everything, and close it with the context: what was opened last goes first.

    Runs are drained before the CRM client closes, the saver's queue before the pool, the pool before the
    database stops.

    Args:
        settings: What to open.
        models: Stand instead of those the settings name.

    Raises:
        StartupError: Something cannot be opened; the message is the line to show.
    """
    # First, as it needs nothing: a wrong model is said before a database is made.
    models = models or chat_models(settings.models, settings.features)
    metrics = ServiceMetrics()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(models.aclose)
        tracing = await stack.enter_async_context(open_tracing(settings.tracing))
        url = settings.database.url
        address = (
            url.get_secret_value()
            if url
            else await stack.enter_async_context(embedded_postgres_server(settings.server.data_dir))
        )
        pool = await stack.enter_async_context(open_pool(address, settings.database))
        await stack.enter_async_context(watching(pool))
        saver = await stack.enter_async_context(open_saver(pool, metrics))
        memory = await _memory(stack, settings, pool)
        await migrate_sessions(pool)
        development_crm = await _development_crm(settings, pool)
        http = await stack.enter_async_context(
            crm_http_client(
                settings.crm,
                settings.crm.api_base or "http://development-crm",
                transport=httpx.ASGITransport(development_crm, raise_app_exceptions=False)
                if development_crm
                else None,
            )
        )
        crm = CrmClient(http, settings.crm)
        tools = {
            **crm_tools(crm, approve_messages_from=settings.approvals.message_risk, memory=memory),
            **memory_tools(memory),
        }
        roster = specialised_agents(settings, tools)
        stack.push_async_callback(roster.router.aclose)
        # The first message is not to wait for it, nor is the start.
        warming = asyncio.create_task(_warm(roster))
        stack.push_async_callback(_ended, warming)
        deps = Deps(
            models=models,
            tools=tools,
            crm=crm,
            roster=roster,
            memory=memory,
            context_tokens=settings.context.tokens,
        )
        graphs = {
            spec.name: spec.build(deps).compile(checkpointer=saver, name=spec.name)
            for spec in REGISTRY.values()
        }
        sessions = SessionStore(pool, idle_seconds=settings.sessions.idle_seconds)
        keeper = SessionKeeper(
            sessions, graphs["coordinator"], models, memory, seconds=settings.sessions.sweep_seconds
        )
        with metered(RunMeter(metrics, BACKGROUND)):
            keeping = asyncio.create_task(keeper.run(), name="session-keeper")
        stack.push_async_callback(_ended, keeping)
        runs = Runs(settings.runs, metrics, tracing, pool)
        add_gauges(metrics, runs=runs, pool=pool, saver=saver)
        erasure = Erasure(pool=pool, memory=memory, settled=saver.settled, forget=(saver.forget,))
        await stack.enter_async_context(retention(settings, pool, erasure, runs))
        stack.push_async_callback(runs.drain)
        yield Service(
            settings=settings,
            lifecycle=Lifecycle(),
            pool=pool,
            runs=runs,
            graphs=graphs,
            model=models.info,
            roster=roster,
            erasure=erasure,
            memory=memory,
            sessions=sessions,
            warming=warming,
            keeper=keeper,
            metrics=metrics,
            tracing=tracing,
            development_crm=development_crm,
        )


async def _memory(stack: AsyncExitStack, settings: Settings, pool: Pool) -> Memory:
    """The memory, whose background tasks end before the pool does."""
    embedder = embeddings(settings, "retrieval")
    stack.push_async_callback(embedder.aclose)
    return await stack.enter_async_context(open_memory(settings, pool, embedder))


async def _development_crm(settings: Settings, pool: Pool) -> FastAPI | None:
    if settings.crm.api_base:
        return None
    await migrate(pool)
    return create_crm(pool, settings.crm.api_key)


async def _warm(roster: Roster) -> None:
    """Have the router learn the agents' examples."""
    try:
        await roster.router.ready()
    except EmbeddingError as error:
        log.warning("router_not_ready", reason=error.message)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
