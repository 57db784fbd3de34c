"""Measure what a second process brings: ``WORKERS=2`` beside ``WORKERS=1``, asked in turn.

Clients and Postgres share the machine's cores with the services, so that answers per second say little about
a machine where they have cores of their own. What counts is CPU: a process uses one core, so that it answers
at most as many requests a second as its CPU time for one goes into a second; with two processes, the busier
one is the limit. ``make bench-workers`` prints both; it takes two minutes.
"""

import argparse
import contextlib
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.service import MB, Target, level, target

AT_ONCE: Final = 50
WARMUP_RUNS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round of conversations.

    Attributes:
        per_second: Answers per second by the clock.
        service: CPU of all processes of the service for a run, ms.
        busiest: CPU of the busiest one for each run of the round, ms; its inverse is the limit.
        database: CPU of Postgres for a run, ms.
        clients: CPU of this process for a run, ms.
    """

    per_second: float
    service: float
    busiest: float
    database: float
    clients: float


def list_processes(to: Target) -> list[psutil.Process]:
    """Return the processes that serve."""
    return to.process.children() or [to.process]


def _read_cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


async def measure(to: Target, way: str, runs: int) -> Round:
    """Hold conversations, 50 at a time."""
    processes = list_processes(to)
    before = [_read_cpu(process) for process in processes]
    service, database, clients = to.cpu_seconds, to.database_cpu_seconds, _read_cpu(psutil.Process())
    found = await level(to, way, AT_ONCE, runs)
    if found.failed:
        statuses = Counter((answer.status, answer.complete) for answer in found.answers)
        raise SystemExit(f"{found.failed} of {runs} runs failed; status and completeness: {dict(statuses)}")
    used = [_read_cpu(process) - old for process, old in zip(processes, before, strict=True)]
    return Round(
        per_second=found.per_second,
        service=1e3 * (to.cpu_seconds - service) / runs,
        busiest=1e3 * max(used) / runs,
        database=1e3 * (to.database_cpu_seconds - database) / runs,
        clients=1e3 * (_read_cpu(psutil.Process()) - clients) / runs,
    )


def print_memory(console: Console, name: str, to: Target) -> None:
    """Print the memory of each process: its own, and its share of what several map."""
    for process in dict.fromkeys([to.process, *list_processes(to)]):
        memory = process.memory_full_info()
        console.print(
            f"WORKERS={name}: {memory.rss / MB:.0f} MB resident, {memory.uss / MB:.0f} MB of its "
            f"own, {memory.pss / MB:.0f} MB with its share of what is mapped by several"
        )


async def compare(ways: list[str], rounds: int, runs: int) -> None:
    """Measure one and two processes in turn, and print."""
    console = Console()
    console.width = max(console.width, 150)
    found: dict[tuple[str, str], list[Round]] = {}
    async with contextlib.AsyncExitStack() as stack:
        targets = {}
        for workers in ("1", "2"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-bench-")))
            opening = target(folder, AT_ONCE, settings={"WORKERS": workers})
            targets[workers] = await stack.enter_async_context(opening)
        for to in targets.values():
            await level(to, "invoke", AT_ONCE, WARMUP_RUNS)
        for way in ways:
            for _ in range(rounds):
                for workers, to in targets.items():
                    found.setdefault((way, workers), []).append(await measure(to, way, runs))
        for workers, to in targets.items():
            print_memory(console, workers, to)
    table = Table(
        title=f"{AT_ONCE} conversations at once, best of {rounds} rounds; load {os.getloadavg()[0]:.1f}"
    )
    for column in (
        "way",
        "WORKERS",
        "runs/s by the clock",
        "service, ms CPU",
        "busiest process",
        "limit, runs/s",
    ):
        table.add_column(column, justify="right")
    for column in ("Postgres, ms CPU", "clients, ms CPU"):
        table.add_column(column, justify="right")
    for (way, workers), each in found.items():
        busiest = min(one.busiest for one in each)
        table.add_row(
            *(way, workers, f"{max(one.per_second for one in each):.0f}"),
            *(f"{min(one.service for one in each):.2f}", f"{busiest:.2f}", f"{1e3 / busiest:.0f}"),
            *(f"{min(one.database for one in each):.2f}", f"{min(one.clients for one in each):.2f}"),
        )
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a second process brings.")
    parser.add_argument("--ways", nargs="*", default=["invoke", "stream_events"], help="routes of LangServe")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--runs", type=int, default=150, help="of a round")
    given = parser.parse_args()
    uvloop.run(compare(given.ways, given.rounds, given.runs))
