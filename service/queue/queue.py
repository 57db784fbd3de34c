"""The task queue: register tasks, defer jobs, repeat passes, and work the queue."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import structlog
from procrastinate import App, JobContext
from procrastinate.exceptions import AlreadyEnqueued
from procrastinate.jobs import DeleteJobCondition, Job
from procrastinate.types import JSONValue
from procrastinate.worker import Worker
from psycopg.errors import ForeignKeyViolation

from core.errors import ServiceError
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Connection, Pool
from core.settings import QueueSettings
from core.tasks import Supervisor, current_status, periodic
from service.queue.jobs import Connector, PatientJobs, Retry, RetryStrategy, unwrap_errors
from service.queue.upkeep import QUERIES, QueueMeter, Upkeep

log = get_logger(__name__)

# How long a job may wait for a worker that has missed the wake-up, and one that is due at a certain time.
POLL_SECONDS: Final = 0.5
# How often to look which passes are due.
TICK_SECONDS: Final = 1.0
CLEANUP_SECONDS: Final = 3_600.0
# Passes are short: they go before other jobs.
PASS_PRIORITY: Final = 10
# Postgres bounds the name of the channel on which workers are woken.
MAX_NAME_CHARACTERS: Final = 40

Function: TypeAlias = Callable[..., Awaitable[object]]


@dataclass(slots=True)
class _Schedule:
    seconds: float
    last_tick: int | None = None


@dataclass(slots=True)
class _Crew:
    """Runs the jobs of some tasks, so many at once."""

    tasks: list[str]
    concurrency: int
    running: int = 0
    worker: Worker | None = None


class TaskQueue:
    """Jobs in Postgres, which any replica runs.

    A job runs at least once: it runs again when its worker died, was silent for too long, or could not record
    the outcome. So a function must bear to be repeated. Each task has a queue of its own in procrastinate's
    sense, so that a replica takes no job of a task that only newer replicas know.

    Args:
        pool: The service's pool; its tables are migrated.
        settings: How much this process works.
        meter: Counts jobs.
        drain_seconds: How long jobs have at a stop; later they are cut off, and another worker runs them.
    """

    def __init__(
        self, pool: Pool, settings: QueueSettings, meter: QueueMeter, *, drain_seconds: float
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._meter = meter
        self._drain_seconds = drain_seconds
        self._jobs = PatientJobs(connector := Connector(pool), self._count_free)
        self._app = App(connector=connector)
        self._app.job_manager = self._jobs
        self._names: list[str] = []
        self._schedules: dict[str, _Schedule] = {}
        self._shared = _Crew([], max(1, settings.concurrency))
        self._crews = [self._shared]
        self._idle = asyncio.Event()
        self._idle.set()
        self._upkeep = Upkeep(pool, meter, self._names, stalled_seconds=settings.stalled_seconds)
        self.every("queue-cleanup", self._delete_failed, seconds=CLEANUP_SECONDS)

    def register(
        self, name: str, function: Function, *, retry: Retry | None = None, concurrency: int | None = None
    ) -> None:
        """Register a task, before :meth:`work`.

        Args:
            name: Of the task; never reuse one for something else, as jobs may still wait.
            function: Does the work; called with the arguments of :meth:`defer`.
            retry: When a job that raised is tried again; ``None``: never. Failed jobs are kept for operators.
            concurrency: Most jobs of the task that this process runs at once, beside those of other tasks:
                for jobs that may last long. ``None``: it shares the places that the settings allow.

        Raises:
            ValueError: The name is too long or taken.
        """

        async def run(context: JobContext, /, **arguments: Any) -> None:
            crew.running += 1
            try:
                await self._run_job(name, context.job, partial(function, **arguments))
            finally:
                crew.running -= 1

        if len(name) > MAX_NAME_CHARACTERS or name in self._names:
            raise ValueError(f"{name!r} is taken, or longer than {MAX_NAME_CHARACTERS} characters")
        self._names.append(name)
        crew = self._shared
        if concurrency is not None:
            self._crews.append(crew := _Crew([], concurrency))
        crew.tasks.append(name)
        self._app.task(name=name, queue=name, pass_context=True, retry=RetryStrategy(retry))(run)

    def every(self, name: str, run_pass: Callable[[], Awaitable[object]], *, seconds: float) -> None:
        """See :meth:`core.tasks.Scheduler.every`."""

        async def run(timestamp: int) -> None:  # noqa: ARG001 - procrastinate's
            await run_pass()

        self.register(name, run)
        self._schedules[name] = _Schedule(seconds)

    async def defer(
        self,
        name: str,
        *,
        lock: str | None = None,
        queueing_lock: str | None = None,
        at: datetime | None = None,
        priority: int = 0,
        connection: Connection | None = None,
        **arguments: JSONValue,
    ) -> bool:
        """Put a job into the queue.

        Args:
            name: Of a registered task.
            lock: No two jobs with the same one run at the same time, and they run in their order.
            queueing_lock: No two jobs of the task with the same one wait at the same time.
            at: Earliest start, with a time zone; ``None``: at once.
            priority: Higher ones are first.
            connection: The job is put into the queue when the connection's transaction commits.
            **arguments: What the function is called with, as JSON.

        Returns:
            False: a job with this queueing lock waits already.

        Raises:
            psycopg.Error, PoolTimeout: The database is unavailable.
        """
        job = self._build_job(
            name, arguments, lock=lock, queueing_lock=queueing_lock, scheduled_at=at, priority=priority
        )
        try:
            with unwrap_errors():
                if connection is None:
                    await self._jobs.defer_job_async(job)
                else:
                    # A savepoint: a refusal must not end the caller's transaction.
                    async with connection.transaction():
                        await self._jobs.defer_job_async(job, connection=connection)
        except AlreadyEnqueued:
            return False
        return True

    async def defer_missing(
        self,
        name: str,
        jobs: Mapping[str, Mapping[str, JSONValue]],
        *,
        locks: Mapping[str, str] = MappingProxyType({}),
    ) -> int:
        """Put those jobs into the queue that neither wait nor run.

        Args:
            name: Of a registered task.
            jobs: Their arguments, by queueing lock. Where another caller defers one of them at the same time,
                none is put into the queue.
            locks: The locks of jobs, by queueing lock; see :meth:`defer`.

        Returns:
            How many there were.
        """
        built = {
            key: self._build_job(name, arguments, queueing_lock=key, lock=locks.get(key))
            for key, arguments in jobs.items()
        }
        missing = await self.list_missing(name, built)
        try:
            if missing:
                with unwrap_errors():
                    await self._jobs.batch_defer_jobs_async([built[key] for key in missing])
        except AlreadyEnqueued:
            return 0
        return len(missing)

    async def list_missing(self, name: str, locks: Collection[str]) -> list[str]:
        """Return those of a task's queueing locks with which no job waits or runs, in their order."""
        if not locks:
            return []
        prefixed = {lock: self._prefix(name, lock) for lock in locks}
        async with self._pool.connection() as connection:
            rows = await connection.execute(QUERIES["find_queued"], {"locks": list(prefixed.values())})
            queued = {row["queueing_lock"] for row in await rows.fetchall()}
        return [lock for lock in locks if prefixed[lock] not in queued]

    def _build_job(
        self, name: str, arguments: Mapping[str, JSONValue], *, queueing_lock: str | None, **options: Any
    ) -> Job:
        if name not in self._names:
            raise ValueError(f"there is no task {name!r}")
        return Job(
            queue=name,
            task_name=name,
            lock=options.pop("lock", None),
            queueing_lock=queueing_lock and self._prefix(name, queueing_lock),
            task_kwargs=dict(arguments),
            **options,
        )

    @staticmethod
    def _prefix(name: str, queueing_lock: str) -> str:
        return f"{name}:{queueing_lock}"

    @asynccontextmanager
    async def work(self, tasks: Supervisor) -> AsyncIterator[None]:
        """Work the queue and have passes repeated while the context is open.

        Every process sees to passes and stalled jobs; the settings say whether it runs jobs too.
        """
        upkeep = partial(
            periodic,
            "queue-upkeep",
            self._upkeep.run_pass,
            seconds=self._settings.stalled_seconds / 3,
            at_once=True,
        )
        pause = min(TICK_SECONDS, *(schedule.seconds for schedule in self._schedules.values()))
        ticks = partial(periodic, "queue-ticks", self._defer_due, seconds=pause, jitter=0, at_once=True)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(tasks.supervise("queue-upkeep", upkeep))
            await stack.enter_async_context(tasks.supervise("queue-ticks", ticks))
            if self._settings.concurrency:
                await stack.enter_async_context(tasks.supervise("queue-worker", self.run))
            try:
                yield
            finally:
                self.stop()
                await self._idle.wait()

    async def run(self, *, until_empty: bool = False) -> None:
        """Run jobs until :meth:`stop`, through outages of the database.

        Args:
            until_empty: Return when no job is due any more.
        """
        self._jobs.status = current_status()
        self._idle.clear()
        try:
            async with asyncio.TaskGroup() as group:
                for crew in self._crews:
                    group.create_task(self._run_crew(crew, wait=not until_empty))
        finally:
            await self._jobs.return_fetched()
            self._idle.set()

    def _count_free(self, tasks: Iterable[str]) -> int:
        """Return how many jobs of a crew's tasks can begin."""
        return sum(crew.concurrency - crew.running for crew in self._crews if crew.tasks == tasks)

    async def _run_crew(self, crew: _Crew, *, wait: bool) -> None:
        while not self._jobs.is_stopping:
            crew.worker = self._build_worker(crew, wait=wait)
            try:
                with unwrap_errors():
                    await crew.worker.run()  # type: ignore[no-untyped-call]
            except ForeignKeyViolation:
                # Stopped or starved for so long that others took it for dead and its jobs over.
                self._jobs.forget_fetched(crew.worker.worker_id)
                log.warning("queue_worker_registers_again")
            else:
                return

    def _build_worker(self, crew: _Crew, *, wait: bool) -> Worker:
        seconds = self._settings.stalled_seconds
        return Worker(
            app=self._app,
            queues=crew.tasks,
            concurrency=crew.concurrency,
            wait=wait,
            fetch_job_polling_interval=POLL_SECONDS,
            shutdown_graceful_timeout=self._drain_seconds,
            delete_jobs=DeleteJobCondition.SUCCESSFUL,
            install_signal_handlers=False,
            update_heartbeat_interval=seconds / 3,
            stalled_worker_timeout=seconds,
        )

    def stop(self) -> None:
        """Start no more jobs, and give those in progress the time that is left to a stop."""
        self._jobs.is_stopping = True
        for crew in self._crews:
            if crew.worker:
                crew.worker.stop()  # type: ignore[no-untyped-call]

    async def _run_job(self, name: str, job: Job, function: Callable[[], Awaitable[object]]) -> None:
        outcome, started = "succeeded", time.perf_counter()
        with structlog.contextvars.bound_contextvars(task=name, job_id=job.id):
            try:
                await function()
            except asyncio.CancelledError:
                outcome = "cut_off"
                raise
            except Exception as error:
                outcome = "failed"
                if isinstance(error, ServiceError):
                    log.warning("job_failed", attempt=job.attempts + 1, reason=error.message)
                elif isinstance(error, DATABASE_UNAVAILABLE):
                    log.warning("job_failed", attempt=job.attempts + 1, reason=str(error).strip())
                else:
                    log.exception("job_failed", attempt=job.attempts + 1)
                # The next pass is the second attempt.
                if name not in self._schedules:
                    raise
            finally:
                self._meter.record_job(name, outcome, time.perf_counter() - started)

    async def _defer_due(self) -> None:
        """Defer the passes that are due.

        A pass is due once in each interval of the clock. The database lets one replica defer it, and none
        while the last one still waits.
        """
        for name, schedule in self._schedules.items():
            tick = int(time.time() / schedule.seconds)
            if tick == schedule.last_tick:
                continue
            job = self._build_job(
                name, {"timestamp": tick}, lock=name, queueing_lock=name, priority=PASS_PRIORITY
            )
            try:
                with unwrap_errors():
                    await self._jobs.defer_periodic_job(
                        job, periodic_id=f"{schedule.seconds:g}", defer_timestamp=tick
                    )
            except AlreadyEnqueued:
                log.debug("pass_still_waits", task=name)
            schedule.last_tick = tick

    async def _delete_failed(self) -> None:
        with unwrap_errors():
            await self._jobs.delete_old_jobs(
                nb_hours=round(self._settings.failed_days * 24),
                include_failed=True,
                include_cancelled=True,
                include_aborted=True,
            )
