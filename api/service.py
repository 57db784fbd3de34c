"""Everything that lives as long as the service: opened in order, closed in reverse."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import httpx
from fastapi import FastAPI

from api.compiled import CompiledGraph
from api.erasure import Erasure
from api.retention import retention
from api.runs import Runs
from api.session_keeper import SessionKeeper
from api.workflow_opening import Workflows, open_engine, open_workflows, workflow_lane
from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from checkpoints.saver import open_saver
from core.embeddings import embeddings
from core.errors import EmbeddingError
from core.logging import get_logger
from core.memory import Memory
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The live things HTTP needs.

    Attributes:
        settings: As the service was started with.
        pool: The one connection pool.
        runs: Runs in progress.
        graphs: The compiled graphs by name.
        model: Which model answers, and why.
        roster: The specialised agents.
        erasure: Takes threads out for good.
        memory: What is remembered of contacts.
        sessions: Which conversation a message belongs to.
        keeper: Closes sessions and sums them up.
        workflows: What runs workflows.
        development_crm: The app to mount at ``/crm``, when no real CRM is set.
    """

    settings: Settings
    pool: Pool
    runs: Runs
    graphs: Mapping[str, CompiledGraph]
    model: ModelInfo
    roster: Roster
    erasure: Erasure
    memory: Memory
    sessions: SessionStore
    keeper: SessionKeeper
    workflows: Workflows
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
    async with AsyncExitStack() as stack:
        stack.push_async_callback(models.aclose)
        url = settings.database.url
        address = (
            url.get_secret_value()
            if url
            else await stack.enter_async_context(embedded_postgres_server(settings.server.data_dir))
        )
        pool = await stack.enter_async_context(open_pool(address, settings.database))
        saver = await stack.enter_async_context(open_saver(pool))
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
        stack.push_async_callback(_ended, asyncio.create_task(_warm(roster)))
        deps = Deps(
            models=models,
            tools=tools,
            crm=crm,
            roster=roster,
            memory=memory,
            context_tokens=settings.context.tokens,
        )
        engine = await stack.enter_async_context(open_engine(settings.workflows, deps=deps, crm=http))
        deps = replace(deps, workflows=engine)
        graphs = {
            spec.name: spec.build(deps).compile(checkpointer=saver, name=spec.name)
            for spec in REGISTRY.values()
        }
        sessions = SessionStore(pool, idle_seconds=settings.sessions.idle_seconds)
        keeper = SessionKeeper(
            sessions, graphs["coordinator"], models, memory, seconds=settings.sessions.sweep_seconds
        )
        stack.push_async_callback(_ended, asyncio.create_task(keeper.run(), name="session-keeper"))
        runs = Runs(settings.runs, workflow_lane(settings.workflows, settings.runs))
        erasure = Erasure(pool=pool, memory=memory, settled=saver.settled, forget=(saver.forget,))
        await stack.enter_async_context(retention(settings, pool, erasure, runs))
        workflows = await stack.enter_async_context(
            open_workflows(settings.workflows, pool, runs=runs, engine=engine, checkpointer=saver)
        )
        stack.push_async_callback(runs.drain)
        yield Service(
            settings=settings,
            pool=pool,
            runs=runs,
            graphs=graphs,
            model=models.info,
            roster=roster,
            erasure=erasure,
            memory=memory,
            sessions=sessions,
            keeper=keeper,
            workflows=workflows,
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
