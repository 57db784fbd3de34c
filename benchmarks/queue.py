"""Measure the task queue: how soon a job starts, and how many one worker finishes.

One process on an embedded Postgres with the service's settings (``fsync`` on); jobs do nothing and each has a
lock of its own. ``make bench-queue`` prints the results.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.logging import configure_logging
from core.postgres import Pool
from core.settings import DatabaseSettings, LogSettings, QueueSettings
from core.tasks import Supervisor
from service.observability.metrics import ServiceMetrics
from service.queue import TaskQueue, migrate_queue

# Jobs whose start is measured, one every so many seconds.
SINGLE_JOBS = 300
PAUSE = 0.02
# Jobs that wait when the worker starts.
BURST = 2_000
BATCH = 100
# Jobs that wait for another time meanwhile.
DELAYED = 10_000
DELAY_SQL = "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 day'"


async def measure_start(queue: TaskQueue, starts: list[float]) -> None:
    """Print how soon single jobs start."""
    async with queue.work(Supervisor()):
        for _ in range(SINGLE_JOBS):
            await queue.defer("work", deferred_at=time.time())
            await asyncio.sleep(PAUSE)
        while len(starts) < SINGLE_JOBS:  # noqa: ASYNC110 - jobs have no event
            await asyncio.sleep(PAUSE)
    p50, p95 = statistics.median(starts), statistics.quantiles(starts, n=20)[-1]
    Console().print(f"start of a job: p50 {p50 * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms")


async def defer_many(queue: TaskQueue, label: str, count: int) -> None:
    """Defer jobs that do not wait for each other."""
    for start in range(0, count, BATCH):
        numbers = range(start, min(count, start + BATCH))
        await asyncio.gather(
            *(queue.defer("work", lock=f"{label}{number}", deferred_at=time.time()) for number in numbers)
        )


async def measure_burst(queue: TaskQueue, starts: list[float], label: str) -> None:
    """Print how many jobs a worker finishes, all of which wait at its start."""
    starts.clear()
    await defer_many(queue, label, BURST)
    started, cpu = time.perf_counter(), time.process_time()
    await queue.run(until_empty=True)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert len(starts) == BURST  # noqa: S101
    Console().print(
        f"{label}: {BURST / seconds:.0f} jobs/s, {cpu / BURST * 1e3:.2f} ms of this process's CPU each"
    )


async def measure(pool: Pool) -> None:
    """Print all measurements."""
    await migrate_queue(pool)
    queue = TaskQueue(pool, QueueSettings(), ServiceMetrics(), drain_seconds=20)
    starts: list[float] = []

    async def work(deferred_at: float) -> None:
        starts.append(time.time() - deferred_at)

    queue.register("work", work)
    await measure_burst(queue, starts, "burst")
    await defer_many(queue, "delayed", DELAYED)
    async with pool.connection() as connection:
        await connection.execute(DELAY_SQL)
    await measure_burst(queue, starts, f"burst beside {DELAYED:,} delayed jobs")
    starts.clear()
    await measure_start(queue, starts)


async def main() -> None:
    """Measure on an embedded server in a temporary directory."""
    configure_logging(LogSettings(level="warning"))
    with tempfile.TemporaryDirectory() as folder:
        async with (
            embedded_postgres_server(Path(folder)) as url,
            open_pool(url, DatabaseSettings()) as pool,
        ):
            await measure(pool)


if __name__ == "__main__":
    uvloop.run(main())
