"""Everything that lives as long as the service: opened in order, closed in reverse."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import httpx
from fastapi import FastAPI

from checkpoints.cache import compute_cache_version, open_cache
from checkpoints.pool import WatchedPool, open_database, watch_database
from checkpoints.saver import open_saver
from core.embeddings import build_embedder
from core.errors import EmbeddingError
from core.logging import get_logger
from core.memory import Memory
from core.metrics import BACKGROUND, use_meter
from core.models import ChatModels, ModelInfo, build_chat_models
from core.postgres import Pool
from core.settings import Settings
from core.tasks import Supervisor, cancel_and_wait
from dev_crm.app import create_crm
from dev_crm.migrations import migrate
from graphs.agent_registry import build_agent_registry
from graphs.caching import is_cacheable
from graphs.registry import REGISTRY
from memory.embedded import open_configured_memory
from nodes.coordinator.router import AgentRegistry
from nodes.deps import Deps
from service.audit.idempotency import RecordedEffects, RequestKeys
from service.audit.trail import AuditTrail
from service.audit.worker import maintain_audit
from service.auth.authenticator import Authenticator, open_authenticator
from service.auth.rate_limits import RateLimiter, open_storage
from service.lifespan import Lifecycle
from service.migrations import migrate_rooms
from service.observability.gauges import add_gauges
from service.observability.metrics import RunMeter, ServiceMetrics
from service.observability.tracing import Tracing, open_tracing
from service.retention import supervise_retention
from service.runs.erasure import Erasure
from service.runs.executor import RunExecutor
from service.runs.limits import build_queues
from service.runs.observers import RunObserver
from service.runs.preconditions import ThreadOwners
from service.runs.request import CompiledGraph
from service.runs.sessions import summarise_session
from service.runs.start import RunStart
from service.sessions.store import SessionStore
from service.sessions.worker import SessionWorker
from service.version import VERSION
from service.workflows.workflows import Workflows, open_engine, open_workflows
from tools.catalogue import crm_tools, memory_tools
from tools.crm.client import CrmClient, create_http_client

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The live things HTTP needs.

    Attributes:
        settings: As the service was started with.
        lifecycle: Whether it is about to stop.
        pool: The one connection pool.
        authenticator: Authenticates callers; ``None``: authentication is off.
        rates: Limits the requests of tenants; ``None``: authentication is off.
        ownership: Whose threads are.
        runs: Runs in progress.
        graphs: The compiled graphs by name.
        model: Which model answers, and why.
        agents: The registry of the specialised agents.
        erasure: Takes threads out for good.
        memory: What is remembered of contacts.
        sessions: The sessions of contacts.
        requests: Idempotency keys of requests.
        audit: The audit trail.
        warming: Done when the router has learned the agents' examples, or could not.
        session_worker: Closes idle sessions and summarises them.
        workflows: What runs workflows.
        metrics: What is counted.
        tracing: Begins the spans of requests and runs.
        tasks: Supervises the background tasks and knows their status.
        development_crm: The app to mount at ``/crm``, when no real CRM is set.
    """

    settings: Settings
    lifecycle: Lifecycle
    pool: WatchedPool
    authenticator: Authenticator | None
    rates: RateLimiter | None
    ownership: ThreadOwners
    runs: RunExecutor
    graphs: Mapping[str, CompiledGraph]
    model: ModelInfo
    agents: AgentRegistry
    erasure: Erasure
    memory: Memory
    sessions: SessionStore
    requests: RequestKeys
    audit: AuditTrail
    warming: asyncio.Task[None]
    session_worker: SessionWorker
    workflows: Workflows
    metrics: ServiceMetrics
    tracing: Tracing
    tasks: Supervisor
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
    models = models or build_chat_models(settings.models, settings.features)
    metrics = ServiceMetrics()
    tasks = Supervisor()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(models.aclose)
        tracing = await stack.enter_async_context(open_tracing(settings.tracing))
        pool = await stack.enter_async_context(open_database(settings.database, settings.server.data_dir))
        await stack.enter_async_context(watch_database(pool))
        await migrate_rooms(pool)
        authenticator = open_authenticator(settings.auth, pool)
        rates = await _rates(stack, settings, pool) if authenticator else None
        saver = await stack.enter_async_context(open_saver(pool, metrics))
        memory = await _memory(stack, settings, pool)
        development_crm = await _development_crm(settings, pool)
        http = await stack.enter_async_context(
            create_http_client(
                settings.crm,
                settings.crm.api_base or "http://development-crm",
                transport=httpx.ASGITransport(development_crm, raise_app_exceptions=False)
                if development_crm
                else None,
            )
        )
        effects = RecordedEffects(pool)
        crm = CrmClient(http, settings.crm, effects=effects)
        tools = {
            **crm_tools(crm, approve_messages_from=settings.approvals.message_risk, memory=memory),
            **memory_tools(memory),
        }
        agents = build_agent_registry(settings, tools)
        stack.push_async_callback(agents.router.aclose)
        # The first message is not to wait for it, nor is the start.
        warming = asyncio.create_task(_warm(agents))
        stack.push_async_callback(cancel_and_wait, warming)
        deps = Deps(
            models=models,
            tools=tools,
            crm=crm,
            agents=agents,
            memory=memory,
            context_tokens=settings.context.tokens,
        )
        engine = await stack.enter_async_context(
            open_engine(settings.workflows, deps=deps, crm=http, effects=effects)
        )
        deps = replace(deps, workflows=engine)
        built = {spec.name: spec.build(deps) for spec in REGISTRY.values()}
        cache = await stack.enter_async_context(
            open_cache(
                settings.cache,
                settings.redis,
                version=compute_cache_version(VERSION, built),
                is_cacheable=is_cacheable,
            )
        )
        graphs = {
            name: graph.compile(checkpointer=saver, cache=cache, name=name) for name, graph in built.items()
        }
        sessions = SessionStore(pool, idle_seconds=settings.sessions.idle_seconds)
        summarise = partial(summarise_session, graph=graphs["coordinator"], models=models, memory=memory)
        session_worker = SessionWorker(sessions, summarise, seconds=settings.sessions.sweep_seconds)
        with use_meter(RunMeter(metrics, BACKGROUND)):
            await stack.enter_async_context(tasks.supervise("session-worker", session_worker.run))
        ownership = ThreadOwners(pool)
        audit, requests = AuditTrail(pool), RequestKeys(pool, hours=settings.idempotency.key_hours)
        await stack.enter_async_context(maintain_audit(tasks, pool, audit, requests, settings.audit))
        lanes = build_queues(settings.runs, settings.workflows, shared=settings.auth.enabled)
        runs = RunExecutor(
            settings.runs,
            lanes,
            RunStart(ownership, audit),
            RunObserver(metrics, tracing, audit),
            database_away=lambda: pool.unavailable_reason,
        )
        add_gauges(metrics, runs=runs, pool=pool, saver=saver, steps=engine.slots)
        erasure = Erasure(pool=pool, memory=memory, settled=saver.flush, forget=(saver.forget,))
        await stack.enter_async_context(supervise_retention(tasks, settings, pool, erasure, runs))
        workflows = await stack.enter_async_context(
            open_workflows(
                settings.workflows, pool, runs=runs, engine=engine, checkpointer=saver, tasks=tasks
            )
        )
        stack.push_async_callback(runs.drain)
        yield Service(
            settings=settings,
            lifecycle=Lifecycle(),
            pool=pool,
            authenticator=authenticator,
            rates=rates,
            ownership=ownership,
            runs=runs,
            graphs=graphs,
            model=models.info,
            agents=agents,
            erasure=erasure,
            memory=memory,
            sessions=sessions,
            requests=requests,
            audit=audit,
            warming=warming,
            session_worker=session_worker,
            workflows=workflows,
            metrics=metrics,
            tracing=tracing,
            tasks=tasks,
            development_crm=development_crm,
        )


async def _rates(stack: AsyncExitStack, settings: Settings, pool: Pool) -> RateLimiter:
    limits = settings.limits
    return RateLimiter(
        await stack.enter_async_context(open_storage(limits, settings.redis, pool)),
        limits.limit_requests,
        limits.limit_requests_per_tenant,
        timeout=limits.limit_timeout_seconds,
    )


async def _memory(stack: AsyncExitStack, settings: Settings, pool: Pool) -> Memory:
    """The memory, whose background tasks end before the pool does."""
    embedder = build_embedder(settings, "retrieval")
    stack.push_async_callback(embedder.aclose)
    return await stack.enter_async_context(open_configured_memory(settings, pool, embedder))


async def _development_crm(settings: Settings, pool: Pool) -> FastAPI | None:
    if settings.crm.api_base:
        return None
    await migrate(pool)
    return create_crm(pool, settings.crm.api_key)


async def _warm(agents: AgentRegistry) -> None:
    """Have the router learn the agents' examples."""
    try:
        await agents.router.prepare()
    except EmbeddingError as error:
        log.warning("router_not_ready", reason=error.message)
