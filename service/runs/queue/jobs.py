"""How procrastinate reaches the database: on the service's pool, and patient during an outage."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from procrastinate import PsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from psycopg.errors import RaiseException

from checkpoints.pool import connect
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Pool
from core.tasks import Backoff, TaskStatus

log = get_logger(__name__)

T = TypeVar("T")

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

    Args:
        connector: Reaches the database.

    Attributes:
        status: Is told of outages.
        is_stopping: Whether the worker stops, so that nothing more is waited for.
    """

    def __init__(self, connector: Connector) -> None:
        super().__init__(connector)
        self.status = TaskStatus()
        self.is_stopping = False
        # Jobs this process has fetched and whose outcome is not recorded yet.
        self._held: set[int] = set()
        # Workers for which a job may have been fetched in a transaction whose answer was lost.
        self._may_have_lost: set[int] = set()

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """Return the next job, which is this worker's from then on; ``None``: there is none."""
        fetch = super().fetch_job

        async def attempt() -> Job | None:
            try:
                return await fetch(queues, worker_id)
            except ConnectorException:
                self._may_have_lost.add(worker_id)
                raise

        job = await self._repeat(attempt)
        if job and job.id is not None:
            self._held.add(job.id)
        if worker_id in self._may_have_lost and not self.is_stopping:
            await self._return_lost(worker_id)
        return job

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:  # noqa: FBT001 - theirs
        """Record that a job has ended."""
        finish = super().finish_job
        await self._record(job, lambda: finish(job, status, delete_job))

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
        """Leave silent workers to :meth:`service.runs.queue.TaskQueue.requeue_stalled`.

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
