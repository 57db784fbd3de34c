"""How procrastinate reaches the database: on the service's pool, and patient during an outage."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from procrastinate import PsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from psycopg.errors import RaiseException
from psycopg.types.json import Json

from checkpoints.pool import connect
from core.batching import Batcher
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Pool, read_queries
from core.tasks import Backoff, TaskStatus

log = get_logger(__name__)

T = TypeVar("T")

_QUERIES: Final = read_queries(Path(__file__).parent / "queue.sql")
_FETCH_SQL: Final = _QUERIES["fetch_jobs"].decode()
_FINISH_SQL: Final = _QUERIES["finish_jobs"].decode()

# How soon an unavailable database is tried again.
RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a job that failed is tried again.

    Attributes:
        backoff: The pauses between attempts.
        attempts: Most attempts, those that a stop cut off included; ``None``: until it succeeds.
    """

    backoff: Backoff
    attempts: int | None = None


class RetryStrategy(BaseRetryStrategy):
    """Retries as a task's :class:`Retry` says, and at once what a stopping worker cut off."""

    def __init__(self, retry: Retry | None) -> None:
        self._retry = retry

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Return when to try again; ``None``: the job has failed for good."""
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision()
        attempt = job.attempts + 1
        retry = self._retry
        if retry is None or (retry.attempts is not None and attempt >= retry.attempts):
            return None
        return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=retry.backoff.pause(attempt)))


@contextmanager
def unwrap_errors() -> Iterator[None]:
    """Raise the driver's own error instead of the one procrastinate wraps it in."""
    try:
        yield
    except ConnectorException as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def is_outage(error: ConnectorException) -> bool:
    """Return whether the database cannot be reached, or cannot serve at the moment."""
    return isinstance(error.__cause__, DATABASE_UNAVAILABLE)


class Connector(PsycopgConnector):
    """Connections of the service's own pool.

    Args:
        pool: Its opener closes it.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._service_pool = pool
        self._async_pool: Any = pool  # procrastinate declares one whose rows are tuples
        self._pool_externally_set = True

    @asynccontextmanager
    async def _get_standalone_connection(self) -> AsyncIterator[Any]:
        # Procrastinate's own passes autocommit beside the pool's parameters, which hold it already.
        async with await connect(self._service_pool) as connection:
            yield connection

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Listen until cancelled; during an outage, jobs are found by polling as soon as it is over."""
        while True:
            try:
                await super().listen_notify(on_notification=on_notification, channels=channels)
            except ConnectorException as error:
                if not is_outage(error):
                    raise
            await asyncio.sleep(RETRY_SECONDS)


class PatientJobs(JobManager):
    """Procrastinate's statements about jobs, repeated until the database answers.

    A worker therefore survives an outage, and so do the jobs it runs.

    Jobs that end at the same time share a statement, and a burst of them is fetched with few.

    Args:
        connector: Reaches the database.
        count_free: Returns how many jobs of these queues can begin at once here.

    Attributes:
        status: Is told of outages.
        is_stopping: Whether the worker stops, so that nothing more is waited for.
    """

    def __init__(self, connector: Connector, count_free: Callable[[Iterable[str]], int]) -> None:
        super().__init__(connector)
        self._count_free = count_free
        # Jobs of each worker that were fetched with others and begin next, and how many to fetch at once.
        self._fetched: dict[int, deque[Job]] = {}
        self._limits: dict[int, int] = {}
        self._finishes: Batcher[dict[str, Any], None] = Batcher(
            self._finish_all,
            is_shared=lambda error: isinstance(error, ConnectorException) and is_outage(error),
        )
        self.status = TaskStatus()
        self.is_stopping = False
        # Jobs this process has fetched and whose outcome is not recorded yet.
        self._held: set[int] = set()
        # Workers for which a job may have been fetched in a transaction whose answer was lost.
        self._may_have_lost: set[int] = set()

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """Return the next job, which is this worker's from then on; ``None``: there is none."""
        fetched = self._fetched.setdefault(worker_id, deque())
        if not fetched:
            fetched.extend(await self._fetch_several(list(queues or ()), worker_id))
        if worker_id in self._may_have_lost and not self.is_stopping:
            await self._return_lost(worker_id)
        return fetched.popleft() if fetched else None

    async def _fetch_several(self, queues: list[str], worker_id: int) -> list[Job]:
        limit = min(self._limits.get(worker_id, 1), max(1, self._count_free(queues)))

        async def attempt() -> list[dict[str, Any]]:
            try:
                return await self.connector.execute_query_all_async(
                    _FETCH_SQL, queues=queues, worker_id=worker_id, limit=limit
                )
            except ConnectorException:
                self._may_have_lost.add(worker_id)
                raise

        jobs = [Job.from_row(row) for row in await self._repeat(attempt) or ()]
        self._held.update(job.id for job in jobs if job.id is not None)
        # Twice as many where there may be more: looking for one that is not there costs as much.
        self._limits[worker_id] = 2 * limit if len(jobs) == limit else 1
        return jobs

    async def return_fetched(self) -> None:
        """Return the jobs to the queue that were fetched and not begun."""
        for jobs in self._fetched.values():
            while jobs:
                await self.retry_job(jobs.popleft())

    def forget_fetched(self, worker_id: int | None) -> None:
        """Leave the jobs of a worker that was taken for dead to those who have them now."""
        for job in self._fetched.pop(worker_id or 0, ()):
            self._held.discard(job.id or 0)

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:  # noqa: FBT001 - theirs
        """Record that a job has ended."""
        end = {"id": job.id, "status": status.value, "delete_job": delete_job}
        await self._record(job, lambda: self._finishes.call(end))

    async def _finish_all(self, ends: Sequence[dict[str, Any]]) -> Sequence[None]:
        ordered = sorted(ends, key=lambda end: int(end["id"]))
        await self.connector.execute_query_async(_FINISH_SQL, ends=Json(ordered))
        return [None] * len(ends)

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        """Return a job to the queue; one with its queueing lock that waits there already takes its place."""
        retry = super().retry_job
        try:
            await self._record(job, lambda: retry(job, retry_at, priority, queue, lock))
        except UniqueViolation:
            await self.finish_job(job, Status.FAILED, delete_job=True)

    async def update_heartbeat(self, worker_id: int) -> None:
        """Record that a worker is alive; at once when an outage is over, before others take its jobs."""
        update = super().update_heartbeat
        await self._repeat(lambda: update(worker_id))

    async def unregister_worker(self, worker_id: int) -> None:
        """Remove a worker that has stopped; one that could not be removed is seen to be silent."""
        unregister = super().unregister_worker
        await self._repeat(lambda: unregister(worker_id))

    async def prune_stalled_workers(self, seconds_since_heartbeat: float) -> list[int]:  # noqa: ARG002
        """Leave silent workers to :meth:`service.queue.TaskQueue.requeue_stalled`.

        A worker that starts right after an outage would take the others for dead.
        """
        return []

    async def _repeat(self, attempt: Callable[[], Awaitable[T]]) -> T | None:
        """Return what an attempt returns when the database answers; ``None`` where the worker stops first."""
        while True:
            try:
                result = await attempt()
            except ConnectorException as error:
                if not is_outage(error):
                    raise
                self._report_outage(error)
                if self.is_stopping:
                    return None
            else:
                self._report_recovery()
                return result
            await asyncio.sleep(RETRY_SECONDS)

    async def _record(self, job: Job, attempt: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._repeat(attempt)
        except ConnectorException as error:
            if not isinstance(error.__cause__, RaiseException):
                raise
            # This worker was silent for so long that another took the job, or the first attempt did commit.
            log.warning("job_recorded_elsewhere", task=job.task_name, job_id=job.id)
        self._held.discard(job.id or 0)

    async def _return_lost(self, worker_id: int) -> None:
        self._may_have_lost.discard(worker_id)
        for job in await self.list_jobs_async(status=Status.DOING.value, worker_id=worker_id):
            if job.id not in self._held:
                await self.retry_job(job)

    def _report_outage(self, error: ConnectorException) -> None:
        if self.status.state == "running":
            log.warning("background_task_waits", task="queue-worker", reason=str(error.__cause__).strip())
        self.status.state, self.status.last_error = "failing", type(error.__cause__).__name__

    def _report_recovery(self) -> None:
        if self.status.state != "running":
            log.info("background_task_recovered", task="queue-worker")
        self.status.state = "running"
