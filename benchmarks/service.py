"""Measure the service: concurrent conversations, time to first token, memory, and a soak.

One service process (``benchmarks/served.py``, whose model never waits) on an embedded Postgres of its own, as
durable as in production, and the clients on the same cores. ``make bench-service`` runs it; it takes a minute
or two, plus the soak.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import httpx
import psutil
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.clients import Answer, ask
from benchmarks.served import NAME
from benchmarks.shared_graph import TOKENS
from checkpoints.embedded import embedded_postgres_server
from service.observability.agent_status import estimate_quantile

PROJECT: Final = Path(__file__).resolve().parent.parent
# The number of concurrent conversations, and how many there are in all.
LEVELS: Final = {1: 40, 50: 600, 200: 800, 1_000: 2_000}
# Runs per second of plain LangServe with LangGraph's saver on two cores, at 50 concurrent conversations.
MARKS: Final = {"invoke": 59.0, "stream_events": 34.0}
SOAK_AT_ONCE: Final = 50
SAMPLE_SECONDS: Final = 10.0
MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """The service that is measured: a process, with `WORKERS` those it has started, and their Postgres."""

    url: str
    process: psutil.Process
    database: str
    postmaster: psutil.Process

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port."""
        split = urlsplit(self.url)
        return split.hostname or "127.0.0.1", split.port or 80

    @property
    def megabytes(self) -> float:
        """The resident memory."""
        return float(self.process.memory_info().rss / MB)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the service so far, its worker processes included."""
        return _sum_cpu(self.process)

    @property
    def database_cpu_seconds(self) -> float:
        """CPU time of Postgres so far, ended connections included."""
        return _sum_cpu(self.postmaster)


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of one level of concurrency."""

    answers: Sequence[Answer]
    seconds: float
    cpu_seconds: float
    peak_megabytes: float
    own_first: Sequence[tuple[float, float]]

    @property
    def failed(self) -> int:
        """The number of answers that are incomplete or not a 200."""
        return sum(answer.status != 200 or not answer.complete for answer in self.answers)  # noqa: PLR2004

    @property
    def per_second(self) -> float:
        """Complete answers per second."""
        return (len(self.answers) - self.failed) / self.seconds

    def first(self, share: float) -> float:
        """Return a percentile of the clients' time to first token, ms."""
        return percentile([answer.first for answer in self.answers if answer.first is not None], share)

    def total(self, share: float) -> float:
        """Return a percentile of the time to the last byte, ms."""
        return percentile([answer.seconds for answer in self.answers], share)

    def own(self, share: float) -> float:
        """Return a percentile of the time to first token that the service measured, ms."""
        return 1_000 * (estimate_quantile(share, self.own_first) or float("nan"))


def _sum_cpu(parent: psutil.Process) -> float:
    seconds = sum(parent.cpu_times()[:4])
    for child in parent.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            seconds += sum(child.cpu_times()[:4])
    return float(seconds)


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile of seconds, in ms."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextlib.asynccontextmanager
async def target(
    folder: Path,
    places: int,
    *,
    profile: Path | None = None,
    project: Path = PROJECT,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Target]:
    """Start the service of a checkout, this one or another, and wait until it is ready."""
    async with embedded_postgres_server(folder) as url:
        postmaster = psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]))
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "DATABASE_URL": url,
            "PORT": "0",
            "LOG_FORMAT": "json",
            "RUN_MAX_CONCURRENT": str(places),
            "RUN_QUEUE_SECONDS": "300",
            **settings,
        }
        watched = ("-m", "cProfile", "-o", str(profile)) if profile else ()
        with (folder / "service.log").open("wb") as log:
            started = await asyncio.create_subprocess_exec(
                sys.executable,
                *watched,
                "-m",
                "benchmarks.served",
                cwd=project,
                env=environment,
                stdout=PIPE,
                stderr=log,
            )
            assert started.stdout  # noqa: S101 - it was asked for
            line = (await started.stdout.readline()).decode().strip()
            if not line:
                sys.exit((folder / "service.log").read_text())
            try:
                yield Target(line, psutil.Process(started.pid), url, postmaster)
            finally:
                started.send_signal(signal.SIGTERM)
                if code := await started.wait():
                    print(f"the service ended with {code}", file=sys.stderr)


async def conversation(to: Target, way: str) -> Answer:
    """Run one conversation: a new thread, one question, its complete answer."""
    body = {"input": {"message": "How do I export my contacts?", "contact_id": "c1"}}
    if way == "invoke":
        return await ask(to.address, f"/{NAME}/invoke", body, token=b"{", end=f"word{TOKENS - 1}".encode())
    return await ask(to.address, f"/{NAME}/{way}", body, token=b"on_chat_model_stream", end=b"event: end")


async def level(to: Target, way: str, at_once: int, count: int) -> Measured:
    """Run conversations, a limited number at a time."""
    remaining = iter(range(count))
    answers: list[Answer] = []

    async def client() -> None:
        for _ in remaining:
            # All clients share one iterator.
            answers.append(await conversation(to, way))  # noqa: PERF401

    before, cpu = await own_first_tokens(to), to.cpu_seconds
    async with _peak(to) as peak:
        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(at_once)))
        seconds = time.perf_counter() - started
    after = await own_first_tokens(to)
    own = [(bound, count - dict(before).get(bound, 0)) for bound, count in after]
    return Measured(answers, seconds, to.cpu_seconds - cpu, peak(), own)


@contextlib.asynccontextmanager
async def _peak(to: Target) -> AsyncIterator[Callable[[], float]]:
    most = to.megabytes

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, to.megabytes)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(watch())
    try:
        yield lambda: most
    finally:
        task.cancel()


async def own_first_tokens(to: Target) -> list[tuple[float, float]]:
    """Read the service's histogram of the time to first token: upper bounds in seconds, and counts."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{to.url}/metrics", timeout=60)).text
    found = [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "ventros_run_first_token_seconds_bucket" and sample.labels["graph"] == NAME
    ]
    return sorted(found)


async def levels(to: Target, console: Console, chosen: Sequence[int], ways: Sequence[str]) -> bool:
    """Measure and print; return whether no request failed."""
    idle = to.megabytes
    table = Table(title="Conversations of seven steps and 80 tokens, checkpoints durable")
    for column in (
        "way",
        "at once",
        "failed",
        "runs/s",
        "of the mark",
        "first token p50",
        "p99",
        "own p50",
        "own p99",
    ):
        table.add_column(column, justify="right")
    for column in ("whole p50", "p99", "CPU each", "KB each"):
        table.add_column(column, justify="right")
    flawless = True
    for way in ways:
        for at_once in chosen:
            found = await level(to, way, at_once, LEVELS[at_once])
            flawless = flawless and not found.failed
            numbers = [found.first(0.5), found.first(0.99)] if way != "invoke" else [float("nan")] * 2
            numbers += [found.own(0.5), found.own(0.99), found.total(0.5), found.total(0.99)]
            each = 1_024 * max(0.0, found.peak_megabytes - idle) / at_once
            mark = f"{found.per_second / MARKS[way]:.2f}" if way in MARKS and at_once == 50 else ""  # noqa: PLR2004
            table.add_row(
                *(way, f"{at_once:,}", str(found.failed), f"{found.per_second:.1f}", mark),
                *(f"{number:,.0f} ms" for number in numbers),
                *(f"{1_000 * found.cpu_seconds / len(found.answers):.1f} ms", f"{each:,.0f}"),
            )
    console.print(table)
    console.print(f"resident memory: {idle:.0f} MB before, {to.megabytes:.0f} MB after")
    return flawless


async def soak(to: Target, console: Console, minutes: float) -> bool:
    """Run conversations for this long; return whether none failed and memory did not grow."""
    ends = time.monotonic() + 60 * minutes
    answers: list[Answer] = []
    memory: list[float] = []

    async def client() -> None:
        while time.monotonic() < ends:
            answers.append(await conversation(to, "stream_events"))

    async def watch() -> None:
        while time.monotonic() < ends:
            memory.append(to.megabytes)
            await asyncio.sleep(min(SAMPLE_SECONDS, 60 * minutes / 12))

    await asyncio.gather(watch(), *(client() for _ in range(SOAK_AT_ONCE)))
    quarter = max(1, len(memory) // 4)
    early, late = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    failed = sum(answer.status != 200 or not answer.complete for answer in answers)  # noqa: PLR2004
    console.print(
        f"soak of {minutes:g} minutes, {SOAK_AT_ONCE} at once: {len(answers):,} conversations, "
        f"{failed} failed; "
        f"memory {early:.0f} MB in the second quarter, {late:.0f} MB in the last ({late / early - 1:+.1%})"
    )
    return not failed and late < 1.1 * early


async def _command(given: argparse.Namespace) -> bool:
    console = Console()
    console.width = max(console.width, 150)
    with tempfile.TemporaryDirectory(prefix="ventros-bench-") as folder:
        async with target(Path(folder), given.places, profile=given.profile) as to:
            await level(to, "invoke", 10, 50)
            steps: list[Awaitable[bool]] = []
            if given.levels:
                steps.append(levels(to, console, given.levels, given.ways))
            if given.minutes:
                steps.append(soak(to, console, given.minutes))
            return all([await step for step in steps])


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Measure the service under load, on this machine alone.")
    parser.add_argument("--minutes", type=float, default=10, help="of the soak; 0: none")
    parser.add_argument("--levels", type=int, nargs="*", choices=LEVELS, default=list(LEVELS), help="at once")
    parser.add_argument("--ways", nargs="*", choices=MARKS, default=list(MARKS), help="routes of LangServe")
    parser.add_argument("--places", type=int, default=100, help="RUN_MAX_CONCURRENT")
    parser.add_argument("--profile", type=Path, help="write a cProfile of the service to this file")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(_command(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
