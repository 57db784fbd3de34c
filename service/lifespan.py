"""Open everything that lives as long as the service, in order, and close it in reverse."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from checkpoints.pool import WatchedPool, open_database, watch_database
from checkpoints.saver import GroupCommitSaver, open_saver
from core.circuit import CircuitState
from core.concurrency import FairSemaphore
from core.embeddings import VectorCache, build_embedder
from core.logging import get_logger
from core.memory import Memory
from core.metrics import BACKGROUND, use_meter
from core.models import ChatModels, ModelInfo, build_chat_models
from core.postgres import Pool
from core.settings import Settings
from core.tasks import Backoff, Supervisor
from nodes.coordinator.router import AgentRegistry
from nodes.shared.prompts import hash_prompts
from service.agent_server.assistants import AssistantStore
from service.agent_server.commands import ThreadCommands
from service.agent_server.crons import CronStore
from service.agent_server.items import ItemStore
from service.agent_server.note_items import NoteItems
from service.agent_server.opening import open_agent_server, schedule_agent_server
from service.agent_server.protocol_streams import ProtocolStreams
from service.agent_server.run_builder import RunBuilder
from service.agent_server.threads import ThreadStore
from service.audit.idempotency import RecordedEffects, RequestKeys
from service.audit.trail import AuditTrail
from service.audit.worker import maintain_audit
from service.auth.authenticator import Authenticator, open_authenticator
from service.auth.rate_limits import RateLimiter, open_storage
from service.broker import publish_events
from service.conversations.announcements import announce_effect, describe_end
from service.conversations.hooks import RunHooks
from service.conversations.journeys import JourneyRouter
from service.conversations.sessions import SESSION_GRAPH, SessionRuns, summarise_session
from service.conversations.takeover import Takeovers
from service.erasure import Erasure
from service.graph_deps import (
    build_deps,
    compile_graphs,
    create_development_crm,
    name_databases,
    open_crm_client,
    open_memory,
    start_warming,
    supervise_article_sync,
)
from service.migrations import migrate_rooms
from service.observability.metrics import RunMeter, ServiceMetrics, add_gauges
from service.observability.peers import Peers
from service.observability.tracing import Tracing, open_tracing
from service.outbox.events import maintain_outbox
from service.queue import Retry, TaskQueue
from service.retention import schedule_retention
from service.runs.executor import RunExecutor
from service.runs.graphs import ForeignGraph, GraphCatalogue
from service.runs.log.followers import RunFollowers
from service.runs.log.thread_followers import ThreadFollowers
from service.runs.observers import RunObserver
from service.runs.opening import execute_pending, open_runs
from service.runs.request import CompiledGraph
from service.runs.store import RunStore
from service.runs.threads import ThreadHolders, ThreadOwners
from service.sessions.journeys import JourneyStore
from service.sessions.store import SessionStore
from service.sessions.worker import SessionWorker, Summarise
from service.webhooks.deliveries import DeliveryStore
from service.webhooks.endpoints import EndpointStore
from service.webhooks.sender import WebhookSender, register_run_webhook, send_webhooks
from service.workflows.engine import open_engine
from service.workflows.workflows import Workflows, schedule_workflows
from tools.crm.client import CrmClient
from tools.knowledge_base import ArticleSync

log = get_logger(__name__)

# Half of the connections that the pool has by default: they find their session in the database.
_ARRIVALS: Final = 8
# A session is summarised sooner or later, however long a model or memory is unavailable.
_SUMMARY_RETRY = Retry(backoff=Backoff(first=60, longest=3_600))


@dataclass(slots=True)
class Lifecycle:
    """The state of the service between started and stopped.

    Attributes:
        is_stopping: Whether the service was told to stop, so that load balancers send requests elsewhere.
    """

    is_stopping: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The open service: every live object that HTTP routes and middleware use.

    Attributes:
        settings: The settings it was started with.
        lifecycle: Whether it is stopping.
        pool: The connection pool, the only one of the process.
        queue: The task queue.
        saver: The checkpointer; ``/health`` asks whether its last commit failed.
        authenticator: Authenticates callers; ``None``: no authentication is set up.
        rates: Rate limits of tenants; ``None``: without authentication there is one tenant.
        thread_owners: Authorizes access to threads.
        runs: Executes runs.
        run_store: The table of runs.
        followers: The events of runs.
        graphs: The compiled graphs by name.
        model: Which model answers, and why that one.
        agents: The registry of the specialised agents.
        tools: Names of the tools.
        erasure: Erases threads.
        memory: What is remembered of contacts.
        sessions: The customers' sessions.
        session_runs: Enters and closes the sessions of runs.
        takeovers: People who take conversations over.
        journeys: Finds the journey that a message belongs to.
        hooks: What happens around runs: sessions and journeys.
        catalogue: The graphs that runs can be asked of by name, with those that are not ours.
        assistants: Configured variants of the graphs.
        threads: Threads as the Agent Server API shows them.
        run_builder: Builds the runs that the Agent Server API is asked for.
        crons: Runs that begin again and again.
        items: What graphs and clients keep beside threads.
        note_items: The memory's notes, as the store shows them.
        commands: Carries out the commands of the streaming protocol.
        protocol_streams: Follows threads, for its clients too.
        requests: Idempotency keys of requests.
        audit: The audit trail.
        warming: Done when the router has learnt the agents' examples, or could not.
        session_worker: Closes idle sessions and has closed ones summarised.
        workflows: Runs workflows.
        metrics: The instruments behind ``/metrics``.
        tracing: Starts the spans of requests and runs.
        tasks: The background tasks.
        circuits: Returns the circuits of the CRM (``crm``) and of the models that were called, by name.
        webhooks: The endpoints of webhooks.
        deliveries: The deliveries of events to them.
        webhook_sender: Sends them, and knows which addresses are allowed.
        arrivals: Slots of messages that find their session and journey, before they have a run's slot.
        development_crm: The application to mount at ``/crm``; ``None``: a real CRM is set up.
        peers: The other processes that serve the same port; ``None``: there are none.
    """

    settings: Settings
    lifecycle: Lifecycle
    pool: WatchedPool
    queue: TaskQueue
    saver: GroupCommitSaver
    authenticator: Authenticator | None
    rates: RateLimiter | None
    thread_owners: ThreadOwners
    runs: RunExecutor
    run_store: RunStore
    followers: RunFollowers
    graphs: Mapping[str, CompiledGraph]
    model: ModelInfo
    agents: AgentRegistry
    tools: Sequence[str]
    erasure: Erasure
    memory: Memory
    sessions: SessionStore
    session_runs: SessionRuns
    takeovers: Takeovers
    journeys: JourneyRouter
    hooks: RunHooks
    catalogue: GraphCatalogue
    assistants: AssistantStore
    threads: ThreadStore
    run_builder: RunBuilder
    crons: CronStore
    items: ItemStore
    note_items: NoteItems
    commands: ThreadCommands
    protocol_streams: ProtocolStreams
    requests: RequestKeys
    audit: AuditTrail
    warming: asyncio.Task[None]
    session_worker: SessionWorker
    workflows: Workflows
    metrics: ServiceMetrics
    tracing: Tracing
    tasks: Supervisor
    circuits: Callable[[], Mapping[str, CircuitState]]
    webhooks: EndpointStore
    deliveries: DeliveryStore
    webhook_sender: WebhookSender
    arrivals: FairSemaphore
    development_crm: FastAPI | None
    peers: Peers | None


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    models: ChatModels | None = None,
    embedded_url: str | None = None,
    peers: Peers | None = None,
    foreign: Sequence[ForeignGraph] = (),
) -> AsyncIterator[Service]:
    """Open the service; closing the context closes its parts, last opened first.

    So runs are drained before the CRM client closes, the saver writes its queue before the pool closes, and
    the pool closes before the database stops.

    Args:
        settings: What to open.
        models: Replace the models that the settings name.
        embedded_url: The embedded Postgres, if another process runs it for this one.
        peers: The other processes that serve the same port.
        foreign: Graphs that are not of the registry, which the Agent Server API serves beside ours.

    Raises:
        StartupError: Something cannot be opened; the message is the line to print.
    """
    # Several BLAS threads would wait for each other in spin locks on a busy machine; the matrices are small.
    threadpool_limits(limits=1, user_api="blas")  # type: ignore[no-untyped-call]  # it has no types
    async with AsyncExitStack() as stack:
        # Models need nothing, so that a wrong model name is reported before a database is started.
        models = models or build_chat_models(settings.models, settings.features)
        stack.push_async_callback(models.aclose)

        # Instruments and the supervisor of background tasks, which everything below reports to.
        metrics, tasks = ServiceMetrics(), Supervisor()
        tracing = await stack.enter_async_context(open_tracing(settings.tracing))

        pool = await _open_database(stack, settings, tasks, embedded_url)
        queue = TaskQueue(
            pool,
            settings.queue,
            metrics,
            drain_seconds=settings.runs.finish_seconds + settings.runs.drain_seconds,
        )
        stores = _build_stores(settings, pool)
        saver = await stack.enter_async_context(open_saver(pool, metrics))

        # Who callers are, and how often they may call.
        authenticator = open_authenticator(settings.auth, pool)
        rates = await _open_rates(stack, settings, pool) if authenticator else None

        # What agents reach.
        vectors = VectorCache()
        memory = await open_memory(stack, settings, pool, tasks=tasks, scheduler=queue, vectors=vectors)
        development_crm = await create_development_crm(settings, pool)
        crm_http = await open_crm_client(stack, settings, development_crm)

        crm = CrmClient(crm_http, settings.crm, effects=stores.effects)
        deps = build_deps(settings, models, crm, memory, vectors)
        warming = start_warming(stack, deps.agents)
        await supervise_article_sync(stack, tasks, ArticleSync(crm, memory), warming, settings)
        engine = await stack.enter_async_context(
            open_engine(
                settings.workflows,
                databases=await name_databases(settings, pool),
                deps=deps,
                crm=crm_http,
                effects=stores.effects,
            )
        )
        graphs = await compile_graphs(stack, settings, replace(deps, workflows=engine), saver)

        info = replace(models.info, prompts=hash_prompts(spec.prompt for spec in deps.agents.specs.values()))
        owners = ThreadOwners(pool)
        runs = await open_runs(
            stack,
            settings,
            pool,
            tasks,
            saver=saver,
            audit=stores.audit,
            meter=metrics,
            observer=RunObserver(metrics, tracing, stores.audit, prompts=info.prompts),
            describe_end=describe_end,
        )
        erasure = Erasure(pool=pool, memory=memory, settled=saver.flush, forget=(saver.forget,))
        circuits = partial(_list_circuits, crm, models)
        add_gauges(metrics, runs=runs.executor, pool=pool, saver=saver, steps=engine.slots, circuits=circuits)

        # Background tasks.
        summarise = partial(summarise_session, graph=graphs[SESSION_GRAPH.name], models=models, memory=memory)
        session_worker = _schedule_sessions(settings, queue, stores.sessions, summarise)
        await stack.enter_async_context(
            maintain_audit(
                tasks, queue, pool, trail=stores.audit, keys=stores.requests, settings=settings.audit
            )
        )
        schedule_retention(queue, settings, pool, erasure)
        webhooks = EndpointStore(pool)
        webhook_sender = await _open_outbox(stack, settings, pool, tasks=tasks, queue=queue, metrics=metrics)
        workflows = schedule_workflows(
            settings.workflows,
            pool,
            queue,
            runs=runs.executor,
            engine=engine,
            checkpointer=saver,
            metrics=metrics,
        )

        session_runs = SessionRuns(stores.sessions, owners, graphs[SESSION_GRAPH.name])
        journeys = JourneyRouter(stores.journeys, graphs, deps)
        hooks = RunHooks(session_runs, journeys)
        api = open_agent_server(
            stack,
            pool,
            graphs,
            foreign,
            hooks=hooks,
            checkpointer=saver,
            embedder=build_embedder(settings, "retrieval", cache=vectors),
            memory=memory,
            register_webhook=partial(register_run_webhook, webhook_sender, webhooks),
        )
        schedule_agent_server(api, queue, runs.executor, run_store=runs.store, erasure=erasure)
        await execute_pending(
            stack, settings, runs, tasks, queue, graphs=api.catalogue, build_hooks=hooks.build
        )
        with use_meter(RunMeter(metrics, BACKGROUND)):
            await stack.enter_async_context(queue.work(tasks))
        # Registered last, so that it is the first thing to happen when the service closes.
        stack.push_async_callback(_drain, queue, runs.executor)
        yield Service(
            settings=settings,
            lifecycle=(lifecycle := Lifecycle()),
            pool=pool,
            queue=queue,
            saver=saver,
            authenticator=authenticator,
            rates=rates,
            thread_owners=owners,
            runs=runs.executor,
            run_store=runs.store,
            followers=runs.followers,
            graphs=graphs,
            model=info,
            agents=deps.agents,
            tools=tuple(deps.tools),
            erasure=erasure,
            memory=memory,
            sessions=stores.sessions,
            session_runs=session_runs,
            takeovers=Takeovers(
                stores.sessions,
                store=runs.store,
                holders=ThreadHolders(pool),
                runs=runs.executor,
                graph=graphs[SESSION_GRAPH.name],
                audit=stores.audit,
            ),
            journeys=journeys,
            hooks=hooks,
            catalogue=api.catalogue,
            assistants=api.assistants,
            threads=api.threads,
            run_builder=api.run_builder,
            crons=api.crons,
            items=api.items,
            note_items=api.note_items,
            commands=ThreadCommands(
                api.run_builder, runs.executor, store=runs.store, graphs=api.catalogue, owners=owners
            ),
            protocol_streams=ProtocolStreams(
                ThreadFollowers(runs.store, runs.followers), lambda: lifecycle.is_stopping
            ),
            requests=stores.requests,
            audit=stores.audit,
            warming=warming,
            session_worker=session_worker,
            workflows=workflows,
            metrics=metrics,
            tracing=tracing,
            tasks=tasks,
            circuits=circuits,
            webhooks=webhooks,
            deliveries=DeliveryStore(pool),
            webhook_sender=webhook_sender,
            arrivals=FairSemaphore(
                _ARRIVALS,
                shared_limit=_ARRIVALS // 2,
                timeout=settings.runs.queue_seconds,
                queue_length=settings.runs.queue_length,
            ),
            development_crm=development_crm,
            peers=peers,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stores:
    """What is nothing but tables, and needs no opening."""

    audit: AuditTrail
    requests: RequestKeys
    effects: RecordedEffects
    sessions: SessionStore
    journeys: JourneyStore


async def _open_database(
    stack: AsyncExitStack, settings: Settings, tasks: Supervisor, embedded_url: str | None
) -> WatchedPool:
    pool = await stack.enter_async_context(
        open_database(settings.database, settings.server.data_dir, embedded_url=embedded_url)
    )
    await stack.enter_async_context(watch_database(pool, tasks))
    await migrate_rooms(pool)
    return pool


def _build_stores(settings: Settings, pool: Pool) -> _Stores:
    return _Stores(
        audit=AuditTrail(pool),
        requests=RequestKeys(pool, hours=settings.idempotency.key_hours),
        effects=RecordedEffects(pool, announce_effect),
        sessions=SessionStore(pool, idle_seconds=settings.sessions.idle_seconds),
        journeys=JourneyStore(pool),
    )


async def _open_rates(stack: AsyncExitStack, settings: Settings, pool: Pool) -> RateLimiter:
    limits = settings.limits
    return RateLimiter(
        await stack.enter_async_context(open_storage(limits, settings.redis, pool)),
        limits.limit_requests,
        limits.limit_requests_per_tenant,
        timeout=limits.limit_timeout_seconds,
    )


def _list_circuits(crm: CrmClient, models: ChatModels) -> Mapping[str, CircuitState]:
    return {"crm": crm.circuit, **models.circuits}


def _schedule_sessions(
    settings: Settings, queue: TaskQueue, store: SessionStore, summarise: Summarise
) -> SessionWorker:
    worker = SessionWorker(store, summarise, partial(queue.defer_missing, "session-summary"))
    queue.register("session-summary", worker.summarise, retry=_SUMMARY_RETRY)
    queue.every("session-sweep", worker.sweep, seconds=settings.sessions.sweep_seconds)
    return worker


async def _open_outbox(
    stack: AsyncExitStack,
    settings: Settings,
    pool: Pool,
    *,
    tasks: Supervisor,
    queue: TaskQueue,
    metrics: ServiceMetrics,
) -> WebhookSender:
    """Open the ways on which events leave."""
    maintain_outbox(queue, pool, keep_days=settings.events.keep_days)
    await stack.enter_async_context(publish_events(tasks, pool, settings.amqp, metrics))
    return await stack.enter_async_context(
        send_webhooks(
            tasks,
            queue,
            pool,
            settings=settings.webhooks,
            meter=metrics,
            # As for jobs: another process does.
            is_working=settings.queue.concurrency > 0,
        )
    )


async def _drain(queue: TaskQueue, runs: RunExecutor) -> None:
    queue.stop()
    await runs.drain()
