"""The task queue in tests: queues that share a database, and jobs that are due at once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from core.postgres import Pool
from core.settings import QueueSettings
from core.tasks import Supervisor
from service.observability.metrics import ServiceMetrics
from service.queue import TaskQueue
from tests.support.service import RunningService

COUNT_SUMMARIES_SQL = "SELECT count(*) AS n FROM sessions.sessions WHERE summary IS NOT NULL"


def build_queue(
    pool: Pool, metrics: ServiceMetrics | None = None, *, drain_seconds: float = 20, **settings: Any
) -> TaskQueue:
    """Return a queue of a replica."""
    return TaskQueue(
        pool, QueueSettings(**settings), metrics or ServiceMetrics(), drain_seconds=drain_seconds
    )


@asynccontextmanager
async def working(*queues: TaskQueue) -> AsyncIterator[list[Supervisor]]:
    """Have queues worked, each by a replica of its own, until the context closes."""
    if not queues:
        yield []
        return
    first, *others = queues
    tasks = Supervisor()
    async with first.work(tasks), working(*others) as rest:
        yield [tasks, *rest]


async def fetch_jobs(pool: Pool) -> list[tuple[str, str, int]]:
    """Return task, status and attempts of each job, periodic ones excepted."""
    statement = """
        SELECT task_name, status::text AS status, attempts FROM procrastinate_jobs
        WHERE NOT args ? 'timestamp' ORDER BY id
    """
    async with pool.connection() as connection:
        rows = await (await connection.execute(statement)).fetchall()
    return [(row["task_name"], row["status"], row["attempts"]) for row in rows]


async def make_due(pool: Pool) -> None:
    """Let no job wait for its time."""
    async with pool.connection() as connection:
        await connection.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo'")


async def summarise_closed(running: RunningService) -> int:
    """Close idle sessions and have closed ones summarised; return how many were."""

    async def count() -> int:
        async with running.service.pool.connection() as connection:
            row = await (await connection.execute(COUNT_SUMMARIES_SQL)).fetchone()
        return int(row["n"]) if row else 0

    before = await count()
    await running.service.session_worker.sweep()
    await make_due(running.service.pool)
    await running.service.queue.run(until_empty=True)
    return await count() - before


async def until_true(condition: Callable[[], Awaitable[object]]) -> None:
    """Return as soon as an asynchronous condition holds."""
    while not await condition():
        pass
