"""Open what executes runs, and have those executed that no caller waits for."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from checkpoints.pool import WatchedPool
from checkpoints.saver import GroupCommitSaver
from core.settings import Settings
from core.tasks import Supervisor
from service.audit.trail import AuditTrail
from service.observability.metrics import ServiceMetrics
from service.queue import TaskQueue
from service.runs.claims import RunClaims
from service.runs.dispatcher import RunDispatcher
from service.runs.ends import DescribeEnd
from service.runs.executor import RunExecutor
from service.runs.graphs import GraphCatalogue
from service.runs.limits import build_queues
from service.runs.log.followers import RunFollowers
from service.runs.log.part_exchange import PartExchange
from service.runs.notifications import Notifications
from service.runs.observers import RunObserver
from service.runs.recovery import RunRecovery
from service.runs.request import BuildHooks
from service.runs.store import RunStore


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRuns:
    """What executes runs.

    Attributes:
        store: The table of runs.
        executor: Executes the runs of this replica.
        followers: Follows runs of all replicas.
        exchange: Carries the parts of their streams between replicas.
        notifications: What replicas tell each other.
    """

    store: RunStore
    executor: RunExecutor
    followers: RunFollowers
    exchange: PartExchange
    notifications: Notifications


async def open_runs(
    stack: AsyncExitStack,
    settings: Settings,
    pool: WatchedPool,
    tasks: Supervisor,
    *,
    saver: GroupCommitSaver,
    audit: AuditTrail,
    meter: ServiceMetrics,
    observer: RunObserver,
    describe_end: DescribeEnd,
) -> OpenRuns:
    """Open what executes runs; claims are renewed and other replicas heard from now on.

    Args:
        stack: Closes it.
        settings: How many runs, and for how long.
        pool: The service's pool.
        tasks: Supervises the background tasks.
        saver: The graphs' checkpointer.
        audit: Records people's decisions.
        meter: Counts claims.
        observer: Counts, traces and records runs.
        describe_end: Says what becomes true with the end of a run.
    """
    store = RunStore(pool, replica=str(uuid4()), claim_seconds=settings.runs.claim_seconds)
    claims = RunClaims(store, meter, rollback=partial(_delete_run_checkpoints, saver))
    exchange, notifications = PartExchange(store), Notifications(pool)
    followers = RunFollowers(store, exchange)
    for hears in (claims, followers, exchange):
        hears.listen(notifications)
    await stack.enter_async_context(tasks.supervise("run-claims", claims.keep))
    await stack.enter_async_context(tasks.supervise("run-notifications", notifications.listen))
    await stack.enter_async_context(tasks.supervise("run-parts", exchange.run))
    await stack.enter_async_context(tasks.supervise("thread-activity", followers.activity.run))
    executor = RunExecutor(
        settings.runs,
        build_queues(settings.runs, settings.workflows, shared=settings.auth.enabled),
        claims=claims,
        followers=followers,
        audit=audit,
        observer=observer,
        database_unavailable=lambda: pool.unavailable_reason,
        settle=saver.settle,
        describe_end=describe_end,
    )
    return OpenRuns(
        store=store, executor=executor, followers=followers, exchange=exchange, notifications=notifications
    )


async def execute_pending(
    stack: AsyncExitStack,
    settings: Settings,
    runs: OpenRuns,
    tasks: Supervisor,
    queue: TaskQueue,
    *,
    graphs: GraphCatalogue,
    build_hooks: BuildHooks,
) -> None:
    """Have runs executed that no caller waits for, and those of silent replicas freed.

    Args:
        stack: Ends it, when the executor has been drained.
        settings: How many runs at once; none where the queue has no jobs here.
        runs: What executes runs.
        tasks: Supervises the dispatcher.
        queue: Makes the passes over the table of runs.
        graphs: The graphs by name.
        build_hooks: Builds what happens around runs.
    """
    recovery = RunRecovery(runs.store, runs.executor, runs.exchange, graphs=graphs, build_hooks=build_hooks)
    recovery.schedule(queue, settings.runs)
    if not settings.queue.concurrency:
        return
    dispatcher = RunDispatcher(
        runs.store,
        recovery.execute,
        is_stopping=lambda: runs.executor.is_stopping,
        concurrency=settings.queue.concurrency,
        places=settings.runs.max_concurrent_per_tenant,
    )
    dispatcher.listen(runs.notifications)
    await stack.enter_async_context(tasks.supervise("run-dispatcher", dispatcher.run))


async def _delete_run_checkpoints(saver: GroupCommitSaver, thread_id: str, run_id: str) -> None:
    await saver.adelete_for_runs([run_id])
    saver.forget(thread_id)
