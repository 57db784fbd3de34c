"""Measure the cost of a checkpointer: no saver, in memory, LangGraph's Postgres saver, and ours.

All of them run the same turns. Both Postgres savers use one embedded Postgres with the service's settings
(``fsync`` and ``synchronous_commit`` on), each with a database of its own and the same number of connections.
The rounds alternate between the savers; the results are medians over the rounds. ``make bench-checkpoints``
runs it and writes the results into ``benchmarks/README.md``.
"""

import argparse
import asyncio
import gc
import operator
import os
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

import psutil
import psycopg
import uvloop
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from checkpoints.saver import open_saver
from core.logging import configure_logging
from core.postgres import Pool
from core.settings import DatabaseSettings, LogSettings

Graph: TypeAlias = CompiledStateGraph[Any, None, Any, Any]
Saver: TypeAlias = BaseCheckpointSaver[Any]
Durability: TypeAlias = Literal["sync", "async"]

STEPS = 7
CONNECTIONS = 16
ROUNDS = 3
# The number of concurrent threads, and the turns that a round measures at it.
LEVELS = {1: 20, 50: 150, 200: 400, 1000: 1000}
DURABILITIES: tuple[Durability, ...] = ("sync", "async")
NAMES = ("no saver", "InMemorySaver", "AsyncPostgresSaver", "ours")
FAN_OUT = 10_000
# Stands for a model's reply of a usual length.
REPLY = (
    "I looked at the export of the contact and found that it asks for more records than one request may have."
)

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- generated:checkpoints -->", "<!-- /generated -->"


class Conversation(TypedDict):
    """The state that the product's graphs have: messages and plain JSON."""

    messages: Annotated[list[AnyMessage], add_messages]
    notes: Annotated[list[dict[str, Any]], operator.add]
    step: int


class Collected(TypedDict):
    """The state of a fan-out."""

    items: Annotated[list[int], operator.add]


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of one round, or the medians of several.

    Attributes:
        turns: Turns per second.
        p50: Median latency of a turn, ms.
        p99: 99th percentile of the latency, ms.
        client: CPU time of this process per turn, ms.
        server: CPU time of Postgres per turn, ms.
        wal: Write-ahead log per turn, KiB.
        trips: How often the driver waits for Postgres per turn.
        failed: Turns that failed.
    """

    turns: float
    p50: float
    p99: float
    client: float
    server: float
    wal: float
    trips: float
    failed: float


class Trips:
    """Counts how often the driver sends something to Postgres and waits for the answer."""

    def __init__(self) -> None:
        self.count = 0
        waits = psycopg.AsyncConnection.wait

        async def wait(connection: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
            # Leaving a connection commits; outside a transaction that sends nothing.
            idle = connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
            self.count += not (idle and work.__name__ == "_commit_gen")
            return await waits(connection, work, *args, **kwargs)

        psycopg.AsyncConnection.wait = wait  # type: ignore[method-assign, assignment]


def conversation(saver: Saver | None) -> Graph:
    """Build a chain of steps, each of which adds a message and a note."""

    async def step(state: Conversation) -> dict[str, Any]:
        number = state["step"] + 1
        return {
            "messages": [AIMessage(REPLY)],
            "notes": [{"step": number, "found": "nothing"}],
            "step": number,
        }

    graph = StateGraph(Conversation)
    before = START
    for number in range(STEPS):
        name = f"step_{number}"
        graph.add_node(name, step)
        graph.add_edge(before, name)
        before = name
    return graph.compile(checkpointer=saver)


def fan_out(saver: Saver | None) -> Graph:
    """Build a graph with one step that sends to many tasks at once."""

    async def work(number: int) -> dict[str, Any]:
        return {"items": [number]}

    graph = StateGraph(Collected)
    graph.add_node("work", work)  # type: ignore[arg-type]  # a Send's node takes what is sent
    graph.add_conditional_edges(
        START, lambda _: [Send("work", number) for number in range(FAN_OUT)], ["work"]
    )
    return graph.compile(checkpointer=saver)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Everything that a round needs.

    Attributes:
        savers: The savers by name; ``None`` for no saver.
        pool: A pool for Postgres' statistics.
        server: The main process of Postgres.
        trips: Counts the driver's waits.
    """

    savers: Mapping[str, Saver | None]
    pool: Pool
    server: psutil.Process
    trips: Trips

    async def turns(self, name: str, threads: int, turns: int, durability: Durability) -> Measured:
        """Measure turns on new threads, with this many threads at once."""
        saver = self.savers[name]
        graph = conversation(saver)
        run = f"{name}-{time.monotonic_ns()}"
        how: dict[str, Any] = {"durability": durability} if saver else {}
        places = asyncio.Semaphore(threads)
        latencies: list[float] = []

        async def turn(number: int) -> None:
            config: RunnableConfig = {"configurable": {"thread_id": f"{run}-{number}"}}
            start = {"messages": [HumanMessage("Why does my export fail?")], "notes": [], "step": 0}
            async with places:
                began = time.perf_counter()
                await graph.ainvoke(start, config, **how)
                latencies.append(1000 * (time.perf_counter() - began))

        gc.collect()
        wal, server = await self._wal(), self._server_seconds()
        client, trips, began = time.process_time(), self.trips.count, time.perf_counter()
        results = await asyncio.gather(*(turn(number) for number in range(turns)), return_exceptions=True)
        took, spent, trips = (
            time.perf_counter() - began,
            time.process_time() - client,
            self.trips.count - trips,
        )
        latencies.sort()
        return Measured(
            turns=turns / took,
            p50=latencies[len(latencies) // 2],
            p99=latencies[int(0.99 * len(latencies))],
            client=1000 * spent / turns,
            server=1000 * (self._server_seconds() - server) / turns,
            wal=(await self._wal() - wal) / 1024 / turns,
            trips=trips / turns,
            failed=sum(isinstance(result, BaseException) for result in results),
        )

    async def fan_out(self, name: str) -> float:
        """Return the seconds that one wide fan-out takes."""
        saver = self.savers[name]
        gc.collect()
        began = time.perf_counter()
        config: RunnableConfig = {"configurable": {"thread_id": f"{name}-{time.monotonic_ns()}"}}
        how: dict[str, Any] = {"durability": "sync"} if saver else {}
        done = await fan_out(saver).ainvoke({"items": []}, config, **how)
        assert len(done["items"]) == FAN_OUT  # noqa: S101 - a wrong answer's time is worth nothing
        return time.perf_counter() - began

    async def _wal(self) -> int:
        async with self.pool.connection() as connection:
            row = await (
                await connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0' AS at")
            ).fetchone()
        return int(row["at"]) if row else 0

    def _server_seconds(self) -> float:
        times = [process.cpu_times() for process in (self.server, *self.server.children())]
        return sum(each.user + each.system for each in times)


@asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    """Open a server, a database and a pool for each Postgres saver, and the savers."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-bench-"))
        url = await stack.enter_async_context(embedded_postgres_server(Path(folder)))
        pools: list[Pool] = []
        # Our saver's writer has a connection besides the pool.
        for name, size in (("stock", CONNECTIONS), ("ours", CONNECTIONS - 1)):
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await connection.execute(f"CREATE DATABASE {name}".encode())
            settings = DatabaseSettings(pool_min_size=size, pool_max_size=size, connect_timeout_seconds=120)
            address = url.replace("/postgres?", f"/{name}?", 1)
            pools.append(await stack.enter_async_context(open_pool(address, settings)))
        stock = AsyncPostgresSaver(pools[0])
        await stock.setup()
        ours = await stack.enter_async_context(open_saver(pools[1]))
        postmaster = int((Path(folder) / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        savers: tuple[Saver | None, ...] = (None, InMemorySaver(), stock, ours)
        yield Bench(
            savers=dict(zip(NAMES, savers, strict=True)),
            pool=pools[1],
            server=psutil.Process(postmaster),
            trips=Trips(),
        )


def median(rounds: Sequence[Measured]) -> Measured:
    """Return the median of each figure."""
    return Measured(
        **{
            field.name: statistics.median(getattr(each, field.name) for each in rounds)
            for field in fields(Measured)
            if field.name != "failed"
        },
        failed=sum(each.failed for each in rounds),
    )


Case: TypeAlias = tuple[Durability, int, str]


async def measure(rounds: int, levels: Mapping[int, int], console: Console) -> str:
    """Run everything and return the results as Markdown."""
    found: dict[Case, list[Measured]] = {}
    fans: dict[str, list[float]] = {}
    fanned = ("InMemorySaver", "ours")
    total = rounds * (len(DURABILITIES) * len(NAMES) * sum(levels.values()) + len(fanned) * FAN_OUT // 10)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    load = [os.getloadavg()[0]]
    async with opened() as bench:
        for name in NAMES:
            await bench.turns(name, 20, 20, "sync")
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=total)
            for number in range(rounds):
                # Each round begins with a different saver.
                order = NAMES[number % len(NAMES) :] + NAMES[: number % len(NAMES)]
                for durability in DURABILITIES:
                    for threads, turns in levels.items():
                        for name in order:
                            progress.update(bar, description=f"{durability}, {threads} threads, {name}")
                            measured = await bench.turns(name, threads, turns, durability)
                            found.setdefault((durability, threads, name), []).append(measured)
                            progress.advance(bar, turns)
                for name in fanned:
                    progress.update(bar, description=f"{FAN_OUT} at once, {name}")
                    fans.setdefault(name, []).append(await bench.fan_out(name))
                    progress.advance(bar, FAN_OUT // 10)
                load.append(os.getloadavg()[0])
    medians = {case: median(each) for case, each in found.items()}
    return "\n".join(
        report(medians, {name: statistics.median(each) for name, each in fans.items()}, rounds, load)
    )


def report(
    found: Mapping[Case, Measured], fans: Mapping[str, float], rounds: int, load: Sequence[float]
) -> Iterable[str]:
    """Format the tables, with an explanation."""
    yield f"{time.strftime('%Y-%m-%d')}, medians of {rounds} alternating rounds. {machine()}."
    yield f"Load average before and after each round: {', '.join(f'{each:.1f}' for each in load)}."
    yield ""
    yield (
        "| durability | threads | saver | turns/s | p50 ms | p99 ms | CPU ms | of it Postgres "
        "| WAL KiB | trips |"
    )
    yield "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|"
    for (durability, threads, name), each in found.items():
        yield (
            f"| {durability} | {threads:,} | {name} | {each.turns:.0f} | {each.p50:.0f} | {each.p99:.0f} "
            f"| {each.client + each.server:.2f} | {each.server:.2f} | {each.wal:.1f} | {each.trips:.1f} |"
        )
    yield ""
    yield "CPU, WAL and trips are of one turn; a trip is a time the driver waits for Postgres."
    yield ""
    yield "| at | turns/s: ours by stock | ours by in-memory | p50: ours by stock |"
    yield "|---|--:|--:|--:|"
    for durability, threads in dict.fromkeys((durability, threads) for durability, threads, _ in found):
        ours, stock, memory = (
            found[durability, threads, name] for name in ("ours", "AsyncPostgresSaver", "InMemorySaver")
        )
        yield (
            f"| {durability}, {threads:,} threads | {ours.turns / stock.turns:.2f} "
            f"| {ours.turns / memory.turns:.2f} | {ours.p50 / stock.p50:.2f} |"
        )
    yield ""
    memory_seconds, seconds = fans["InMemorySaver"], fans["ours"]
    yield (
        f"A fan-out of {FAN_OUT:,} by `Send` takes {memory_seconds:.1f} s in memory and {seconds:.1f} s with "
        f"ours: {seconds / memory_seconds:.2f} times."
    )
    failed = {name: sum(each.failed for (*_, who), each in found.items() if who == name) for name in NAMES}
    yield f"Turns that failed: {', '.join(f'{name} {count:.0f}' for name, count in failed.items())}."


def machine() -> str:
    """Describe the machine and the versions."""
    packages = ("langgraph", "langgraph-checkpoint-postgres", "psycopg", "embedded-postgres", "uvloop")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), {memory:.0f} GiB, {platform.system()} "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}, {versions}"
    )


def write(results: str) -> None:
    """Write the results between the marks of the README."""
    before, rest = README.read_text().split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    README.write_text(f"{before}{BEGIN}\n{results}\n{END}{after}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="alternating rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, nargs="*", choices=LEVELS, help="only these numbers of threads"
    )
    parser.add_argument("--dry", action="store_true", help="print the results, and leave the README as it is")
    arguments = parser.parse_args()
    configure_logging(LogSettings(level="error"))
    console = Console(stderr=True)
    levels = {threads: LEVELS[threads] for threads in arguments.threads or LEVELS}
    results = uvloop.run(measure(arguments.rounds, levels, console))
    print(results)
    if not arguments.dry:
        write(results)


if __name__ == "__main__":
    main()
