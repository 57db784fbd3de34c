"""``make bench-agent-server``: the Agent Server API of this service beside aegra's, with the same graph.

Both serve ``benchmarks/shared_graph.py``, each in one process on an embedded Postgres of its own, with the
same 50 clients on the same cores. Each run is on a new thread: ``POST /threads``, then
``/threads/{id}/runs/wait``, or ``/runs/stream`` with ``messages-tuple``. One server works at a time.
What a run costs without any server is measured in this process.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import STDOUT
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import psutil
import uvloop
from langchain_core.runnables import RunnableConfig
from rich.console import Console
from rich.table import Table

from benchmarks import shared_graph
from benchmarks.clients import Answer, ask
from benchmarks.served import NAME, SHARED_NAME
from benchmarks.service import Target, percentile, target
from benchmarks.shared_graph import TOKENS
from checkpoints.embedded import embedded_postgres_server

CLIENTS: Final = 50
START_SECONDS: Final = 120.0
FIRST: Final = b"word0 "
LAST: Final = f"word{TOKENS - 1} ".encode()
# The end mark of each way.
WAYS: Final[Mapping[str, bytes]] = {"wait": LAST, "stream": b"event: end"}
# What the service is to do at least: runs/s, and at most: time to first token, by aegra's.
MORE_RUNS: Final = 5.0
LESS_WAITING: Final = 0.25
OURS: Final = "this service"
# A new service embeds the CRM's help articles in its first half minute, for which aegra has no counterpart.
QUIET: Final = {"CRM_ARTICLES_SYNC_SECONDS": "0"}
AEGRA: Final = "aegra"


@dataclass(frozen=True, slots=True)
class Server:
    """A server with a graph that is measured."""

    name: str
    target: Target
    graph: str


@dataclass(frozen=True, slots=True)
class Round:
    """What one way of one server did in one round."""

    answers: Sequence[Answer]
    seconds: float
    cpu_seconds: float
    database_cpu_seconds: float

    @property
    def failed(self) -> int:
        """The number of runs without a complete answer."""
        return sum(answer.status != 200 or not answer.complete for answer in self.answers)  # noqa: PLR2004

    @property
    def per_second(self) -> float:
        """Complete runs per second."""
        return (len(self.answers) - self.failed) / self.seconds

    @property
    def first(self) -> float:
        """The median time to first token, ms."""
        return percentile([answer.first for answer in self.answers if answer.first is not None], 0.5)


@contextlib.asynccontextmanager
async def open_aegra(python: Path, folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Target]:
    """Start aegra as its documentation says, and wait until it is ready."""
    _configure(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with embedded_postgres_server(folder) as url:
        postmaster = psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]))
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "AEGRA_CONFIG": str(folder / "aegra.json"),
            "DATABASE_URL": url,
            "LOG_LEVEL": "WARNING",
            **settings,
        }
        command = ("-m", "uvicorn", "aegra_api.main:app", "--port", str(port), "--no-access-log")
        with (folder / "server.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(python), *command, cwd=folder, env=environment, stdout=log, stderr=STDOUT
            )
            try:
                address = f"http://127.0.0.1:{port}"
                await _wait_until_ready(process, address)
                yield Target(address, psutil.Process(process.pid), url, postmaster)
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                elif process.returncode:
                    print((folder / "server.log").read_text()[-5_000:], file=sys.stderr)
                await process.wait()


def _configure(folder: Path) -> None:
    folder.mkdir()
    (folder / "aegra.json").write_text(
        json.dumps({"graphs": {SHARED_NAME: f"{shared_graph.__file__}:graph"}})
    )


async def _wait_until_ready(process: asyncio.subprocess.Process, url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        for _ in range(int(START_SECONDS / 0.2)):
            if process.returncode is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                if (await http.get("/live")).status_code == 200:  # noqa: PLR2004
                    return
            await asyncio.sleep(0.2)
    raise RuntimeError("aegra did not start")


async def converse(server: Server, way: str) -> Answer:
    """Create a thread and have one run on it; the seconds are those of both requests."""
    address = server.target.address
    thread_id = str(uuid4())
    created = await ask(address, "/threads", {"thread_id": thread_id}, token=b"{", end=thread_id.encode())
    if not created.complete:
        return created
    body: dict[str, Any] = {
        "assistant_id": server.graph,
        "input": {"message": "How do I export my contacts?"},
    }
    if way == "stream":
        body["stream_mode"] = ["messages-tuple"]
    answer = await ask(address, f"/threads/{thread_id}/runs/{way}", body, token=FIRST, end=WAYS[way])
    return replace(answer, seconds=created.seconds + answer.seconds)


async def load(server: Server, way: str, count: int) -> Round:
    """Have the clients begin runs until there were so many."""
    remaining = iter(range(count))
    answers: list[Answer] = []

    async def work() -> None:
        for _ in remaining:
            # All clients share one iterator.
            answers.append(await converse(server, way))  # noqa: PERF401

    cpu, database = server.target.cpu_seconds, server.target.database_cpu_seconds
    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CLIENTS)))
    seconds = time.perf_counter() - started
    return Round(
        answers,
        seconds,
        server.target.cpu_seconds - cpu,
        server.target.database_cpu_seconds - database,
    )


async def run_in_process(way: str, count: int) -> Round:
    """Execute runs in this process, without a saver and without HTTP: what LangGraph itself costs."""
    remaining = iter(range(count))
    mode: Any = "messages" if way == "stream" else "values"
    answers: list[Answer] = []

    async def work() -> None:
        for index in remaining:
            begun, first = time.perf_counter(), None
            config: RunnableConfig = {"configurable": {"thread_id": str(index)}}
            async for _ in shared_graph.graph.astream({"message": "Hello"}, config, stream_mode=mode):
                first = first or time.perf_counter() - begun
            answers.append(Answer(200, time.perf_counter() - begun, first, complete=True))

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CLIENTS)))
    return Round(answers, time.perf_counter() - started, time.process_time() - cpu, 0.0)


def show(console: Console, found: Mapping[tuple[str, str], Sequence[Round]]) -> None:
    """Print the medians of the rounds."""
    table = Table(title=f"{CLIENTS} clients, each run on a new thread")
    columns = ("server", "way", "runs", "failed", "runs/s", "first token p50", "CPU each", "of Postgres")
    for column in columns:
        table.add_column(column, justify="right")
    for (name, way), rounds in found.items():
        count = sum(len(each.answers) for each in rounds)
        table.add_row(
            *(name, way, str(count), str(sum(each.failed for each in rounds))),
            " ".join(f"{each.per_second:.1f}" for each in rounds),
            " ".join(f"{each.first:,.0f}" for each in rounds) + " ms" if way == "stream" else "",
            f"{1_000 * sum(each.cpu_seconds for each in rounds) / count:.1f} ms",
            f"{1_000 * sum(each.database_cpu_seconds for each in rounds) / count:.1f} ms",
        )
    console.print(table)


def judge(console: Console, found: Mapping[tuple[str, str], Sequence[Round]]) -> bool:
    """Print how the service compares with the faster aegra, and return whether that is as it should be."""
    is_reached = not any(each.failed for rounds in found.values() for each in rounds)
    for way in WAYS:
        ours = statistics.median(each.per_second for each in found[OURS, way])
        others = {name: rounds for (name, its), rounds in found.items() if its == way and AEGRA in name}
        theirs = max(statistics.median(each.per_second for each in rounds) for rounds in others.values())
        is_reached &= ours >= MORE_RUNS * theirs
        console.print(f"{way}: {ours / theirs:.1f} times aegra's runs/s (target: {MORE_RUNS:g})")
    first = statistics.median(each.first for each in found[OURS, "stream"])
    other = min(
        statistics.median(each.first for each in rounds)
        for (name, way), rounds in found.items()
        if AEGRA in name and way == "stream"
    )
    console.print(f"first token p50: {first / other:.2f} of aegra's (target: {LESS_WAITING:g})")
    return is_reached and first <= LESS_WAITING * other


async def _command(given: argparse.Namespace) -> bool:
    console = Console()
    console.width = max(console.width, 130)
    found: dict[tuple[str, str], list[Round]] = {}
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-bench-")))
        ours = await stack.enter_async_context(target(folder / "ours", CLIENTS, settings=QUIET))
        servers = [Server(OURS, ours, SHARED_NAME), Server(f"{OURS}, its own graph", ours, NAME)]
        if given.aegra:
            aegra = await stack.enter_async_context(open_aegra(given.aegra, folder / "aegra", {}))
            servers.append(Server(AEGRA, aegra, SHARED_NAME))
        if given.aegra and given.redis:
            settings = {"REDIS_BROKER_ENABLED": "true", "REDIS_URL": given.redis}
            workers = await stack.enter_async_context(
                open_aegra(given.aegra, folder / "aegra-redis", settings)
            )
            servers.append(Server(f"{AEGRA} with Redis", workers, SHARED_NAME))
        for server in servers:
            await load(server, "stream", CLIENTS)
        for _ in range(given.rounds):
            for way in WAYS:
                for server in servers:
                    count = given.runs // (1 if server.target is ours else 2)
                    found.setdefault((server.name, way), []).append(await load(server, way, count))
                found.setdefault(("LangGraph in process", way), []).append(
                    await run_in_process(way, given.runs)
                )
    show(console, found)
    return not given.aegra or judge(console, found)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Measure the Agent Server API beside aegra's.")
    parser.add_argument("--aegra", type=Path, help="the Python of an environment that has aegra-api")
    parser.add_argument("--redis", help="its Redis, for its workers, such as redis://127.0.0.1:6379/5")
    parser.add_argument("--runs", type=int, default=300, help="in a round; half as many for aegra")
    parser.add_argument("--rounds", type=int, default=3)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(_command(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
