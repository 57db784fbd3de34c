"""Measure runs that nobody waits for: how soon they start, and whether thousands of them hold others up.

One service (``benchmarks/served.py``) on an embedded Postgres; this process puts pending runs of a graph with
one step into its tables, as any replica does. The database's clock says when a run was created and started.
``make bench-background`` prints the results; it takes two minutes.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import uvloop
from rich.console import Console

from benchmarks.clients import ask
from benchmarks.served import NAME, SHORT_NAME, SHORT_SPEC, TOKENS, build_step
from benchmarks.service import Target, target
from checkpoints.pool import open_pool
from core.logging import configure_logging
from core.postgres import Pool
from core.settings import DatabaseSettings, LogSettings
from nodes.deps import Deps
from service.auth.principal import Identity
from service.runs.insertion import build_run
from service.runs.request import build_run_request
from service.runs.store import RunStore

PARTS: Final = ("starts", "backlog")
# Runs put into the queue in a second, and for how long.
RATES: Final = (50, 100, 150, 200, 300)
SECONDS: Final = 5
WARM_UP_SECONDS: Final = 12
# Runs that wait at once, of which the first ones are measured.
BURST: Final = 1_000
BACKLOG: Final = 10_000
BATCH: Final = 50
INTERACTIVE_RUNS: Final = 40

STARTS_SQL: Final = """
SELECT extract(epoch FROM started_at - created_at)::float8 AS latency FROM runs.runs
WHERE tenant = %(tenant)s AND started_at IS NOT NULL
"""
SPAN_SQL: Final = """
SELECT count(*) AS started, extract(epoch FROM max(started_at) - min(started_at))::float8 AS seconds
FROM runs.runs WHERE tenant = %(tenant)s AND started_at IS NOT NULL
"""
OPEN_SQL: Final = "SELECT count(*) AS runs FROM runs.runs WHERE tenant = %(tenant)s AND ended_at IS NULL"
FAILED_SQL: Final = """
SELECT status, error FROM runs.runs WHERE tenant = %(tenant)s AND status <> 'success' LIMIT 1
"""
DROP_SQL: Final = "UPDATE runs.runs SET status = 'interrupted', ended_at = now() WHERE status = 'pending'"


class Submitter:
    """Puts pending runs into the tables of a service, and reads what became of them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._graph = build_step(cast("Deps", None)).compile(name=SHORT_NAME)
        self._store = RunStore(pool, replica=str(uuid4()), claim_seconds=30)

    async def submit(self, tenant: str) -> None:
        """Put a run into the queue, on a thread of its own."""
        request = build_run_request(
            self._graph,
            SHORT_SPEC,
            {"message": "How do I export my contacts?", "contact_id": "c1"},
            identity=Identity(tenant=tenant, user="bench"),
            thread_id=None,
            locale="en",
        )
        run = build_run(request)
        add = partial(self._store.add, may_start=False, may_wait=True, places=None, queue_length=10**6)
        await add(run, held=False)

    async def submit_many(self, tenant: str, count: int) -> None:
        """Put runs into the queue, as fast as it takes them."""
        for start in range(0, count, BATCH):
            await asyncio.gather(*(self.submit(tenant) for _ in range(min(BATCH, count - start))))

    async def submit_steadily(self, tenant: str, rate: int, seconds: float) -> None:
        """Put so many runs a second into the queue, whether or not they are executed as fast."""
        began, tasks = time.perf_counter(), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(self.submit(tenant)))
        await asyncio.gather(*tasks)

    async def count_open(self, tenant: str) -> int:
        """Return how many runs have not ended."""
        return int((await self._fetch(OPEN_SQL, tenant))[0]["runs"])

    async def require_success(self, tenant: str) -> None:
        """Exit if a run of a tenant has failed: it would have cost less."""
        for row in await self._fetch(FAILED_SQL, tenant):
            raise SystemExit(f"a run ended in {row['status']}: {row['error']}")

    async def wait_until_done(self, tenant: str) -> None:
        """Wait until all runs of a tenant have ended."""
        while await self.count_open(tenant):  # noqa: ASYNC110 - another process executes them
            await asyncio.sleep(0.2)

    async def read_latencies(self, tenant: str) -> list[float]:
        """Return how long each run waited for its start, in seconds."""
        return [row["latency"] for row in await self._fetch(STARTS_SQL, tenant)]

    async def read_rate(self, tenant: str) -> float:
        """Return how many runs were started in a second."""
        [row] = await self._fetch(SPAN_SQL, tenant)
        return float(row["started"] / row["seconds"])

    async def drop_pending(self) -> None:
        """End all runs that wait."""
        async with self._pool.connection() as connection:
            await connection.execute(DROP_SQL)

    async def _fetch(self, query: str, tenant: str) -> Sequence[Any]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(query.encode(), {"tenant": tenant})).fetchall()


def describe(seconds: Sequence[float]) -> str:
    """Return the median and the 95th percentile in ms."""
    p95 = statistics.quantiles(seconds, n=20)[-1]
    return f"p50 {1e3 * statistics.median(seconds):.0f} ms, p95 {1e3 * p95:.0f} ms"


def describe_cpu(to: Target, service: float, database: float, runs: int) -> str:
    """Return the CPU time of a run, given the seconds that were used before so many."""
    return (
        f"CPU of a run: service {1e3 * (to.cpu_seconds - service) / runs:.1f} ms, "
        f"Postgres {1e3 * (to.database_cpu_seconds - database) / runs:.1f} ms"
    )


async def measure_starts(submitter: Submitter, to: Target, console: Console) -> None:
    """Print how soon runs start at several rates, and how many do when all wait at once."""
    for rate in RATES:
        tenant = f"rate-{rate}"
        service, database = to.cpu_seconds, to.database_cpu_seconds
        await submitter.submit_steadily(tenant, rate, SECONDS)
        await submitter.wait_until_done(tenant)
        await submitter.require_success(tenant)
        runs = rate * SECONDS
        console.print(
            f"{rate} runs/s submitted: {await submitter.read_rate(tenant):.0f} started a second, start "
            f"{describe(await submitter.read_latencies(tenant))}; "
            f"{describe_cpu(to, service, database, runs)}; load {os.getloadavg()[0]:.1f}"
        )
    service, database = to.cpu_seconds, to.database_cpu_seconds
    await submitter.submit_many("burst", BURST)
    await submitter.wait_until_done("burst")
    await submitter.require_success("burst")
    console.print(
        f"burst of {BURST:,}: {await submitter.read_rate('burst'):.0f} started a second; "
        f"{describe_cpu(to, service, database, BURST)}"
    )


async def run_interactively(to: Target) -> str:
    """Run conversations one after the other, and describe how long they took."""
    body = {"input": {"message": "How do I export my contacts?", "contact_id": "c1"}}
    seconds = []
    service = to.cpu_seconds
    for _ in range(INTERACTIVE_RUNS):
        answer = await ask(to.address, f"/{NAME}/invoke", body, token=b"{", end=f"word{TOKENS - 1}".encode())
        if not answer.complete:
            raise SystemExit(f"an interactive run was answered with {answer.status}")
        seconds.append(answer.seconds)
    return f"{describe(seconds)}; the service's CPU meanwhile {to.cpu_seconds - service:.1f} s"


async def measure_backlog(submitter: Submitter, to: Target, console: Console) -> None:
    """Print how long interactive runs take beside thousands of pending ones of the same or another tenant."""
    console.print(f"interactive run, nothing pending: {await run_interactively(to)}")
    # Callers without a credential are the tenant "default".
    for tenant in ("another", "default"):
        await submitter.submit_many(tenant, BACKLOG)
        before = await submitter.count_open(tenant)
        described = await run_interactively(to)
        after = await submitter.count_open(tenant)
        console.print(
            f"interactive run, {before:,} to {after:,} runs of tenant {tenant!r} pending: {described}"
        )
        await submitter.drop_pending()
        await submitter.wait_until_done(tenant)


async def main(workers: str, concurrency: str, parts: Sequence[str]) -> None:
    """Measure on an embedded server in a temporary directory."""
    configure_logging(LogSettings(level="error"))
    console = Console()
    console.width = max(console.width, 150)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-bench-")))
        service = target(folder, 100, settings={"WORKERS": workers, "QUEUE_CONCURRENCY": concurrency})
        to = await stack.enter_async_context(service)
        pool = await stack.enter_async_context(open_pool(to.database, DatabaseSettings()))
        submitter = Submitter(pool)
        if "starts" in parts:
            # Meanwhile the service embeds the articles of its CRM.
            await submitter.submit_steadily("warm", 20, WARM_UP_SECONDS)
            await submitter.wait_until_done("warm")
            await measure_starts(submitter, to, console)
        if "backlog" in parts:
            await measure_backlog(submitter, to, console)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure runs that nobody waits for.")
    parser.add_argument("--workers", default="1", help="WORKERS of the service")
    parser.add_argument("--concurrency", default="20", help="QUEUE_CONCURRENCY of each process")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    uvloop.run(main(given.workers, given.concurrency, given.parts))
