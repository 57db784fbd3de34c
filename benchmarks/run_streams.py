"""``make bench-run-streams``: callers who follow runs on another replica than the one that executes them.

One process plays the executing replica, whose runs stream tokens at a fixed rate, and the replica of the
followers; both have a pool and a listening connection of their own, and one embedded Postgres between them.
The delay of a token is from its creation to its follower.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from uuid import uuid4

import psutil
from langchain_core.messages import AIMessageChunk

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.settings import DatabaseSettings
from core.tasks import Supervisor
from service.migrations import migrate_rooms
from service.runs.log.followers import RunFollowers
from service.runs.log.part_exchange import PartExchange
from service.runs.log.run_log import RunLog
from service.runs.notifications import Notifications
from service.runs.request import RunPart, new_run_id
from service.runs.rows import NewRun
from service.runs.store import RunStore

TOKENS_METADATA = {"langgraph_node": "specialist", "tags": ["answer"]}


@asynccontextmanager
async def open_replica(url: str) -> AsyncIterator[RunFollowers]:
    """Open what a replica needs in order to follow runs and to publish theirs."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(url, DatabaseSettings()))
        await migrate_rooms(pool)
        store = RunStore(pool, replica=str(uuid4()), claim_seconds=600)
        exchange, notifications, tasks = PartExchange(store), Notifications(pool), Supervisor()
        followers = RunFollowers(store, exchange)
        followers.listen(notifications)
        exchange.listen(notifications)
        await stack.enter_async_context(tasks.supervise("listen", notifications.listen))
        await stack.enter_async_context(tasks.supervise("events", exchange.run))
        yield followers


async def execute(followers: RunFollowers, run_id: str, rate: float, seconds: float) -> None:
    """Stream tokens as a model writes them; each says when it was made."""
    log = RunLog(1)
    followers.open_log(run_id, run_id, log)
    for _ in range(int(rate * seconds)):
        chunk = AIMessageChunk(content=f"{time.perf_counter()} ", id=run_id)
        part: RunPart = {"type": "messages", "ns": (), "data": (chunk, TOKENS_METADATA)}
        log.take(part)
        await asyncio.sleep(1 / rate)
    followers.end_log(run_id, log, None, None)
    await followers._store.end(run_id, 1, "success")  # noqa: SLF001 - as the executor's claims do


async def follow(followers: RunFollowers, run_id: str) -> list[float]:
    """Return the delay of each token of a run in seconds."""
    return [
        time.perf_counter() - float(numbered.part["data"][0].text)
        async for numbered in followers.follow(run_id, 0)
        if numbered.part["type"] == "messages"
    ]


async def measure(streams: int, rate: float, seconds: float) -> None:
    """Print the delays, and the CPU of this process and of Postgres."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            embedded_postgres_server(Path(folder)) as url,
            open_replica(url) as executing,
            open_replica(url) as following,
        ):
            runs = [new_run_id() for _ in range(streams)]
            for run_id in runs:
                run = NewRun(
                    id=run_id,
                    thread_id=run_id,
                    tenant="default",
                    user="bench",
                    graph="react",
                    queue="runs",
                    kwargs=None,
                    strategy="enqueue",
                )
                await executing._store.add(  # noqa: SLF001 - as the executor's claims do
                    run, may_start=True, may_wait=False, places=None, queue_length=0
                )
            watching = [asyncio.create_task(follow(following, run_id)) for run_id in runs]
            own, database = psutil.Process(), _find_postgres(folder)
            before = _cpu(own), sum(map(_cpu, database))
            started = time.perf_counter()
            await asyncio.gather(*(execute(executing, run_id, rate, seconds) for run_id in runs))
            delays = [delay for each in await asyncio.gather(*watching) for delay in each]
            took = time.perf_counter() - started
            after = _cpu(own), sum(map(_cpu, _find_postgres(folder)))
    cuts = quantiles(delays, n=100)
    print(
        f"{streams} streams of {rate:g} tokens/s: {len(delays)} of {int(rate * seconds) * streams} tokens in "
        f"{took:.1f} s, delay p50 {1000 * median(delays):.0f} ms, p95 {1000 * cuts[94]:.0f} ms, "
        f"p99 {1000 * cuts[98]:.0f} ms; CPU of both replicas {after[0] - before[0]:.1f} s, "
        f"of Postgres {after[1] - before[1]:.1f} s"
    )


def _find_postgres(folder: str) -> list[psutil.Process]:
    parents = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "postgres" and folder in " ".join(process.info["cmdline"] or [])
    ]
    return [*parents, *(child for parent in parents for child in parent.children(recursive=True))]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    asyncio.run(measure(options.streams, options.rate, options.seconds))
