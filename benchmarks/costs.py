"""Measure what a run costs here and in other checkouts: CPU of the service and of Postgres, and WAL.

The services run at the same time, each on an embedded Postgres of its own, and are asked in turn, so that
other load on the machine affects all. Only CPU time counts, and of the rounds the cheapest: load makes a run
look dearer and never cheaper. ``make bench-costs BASELINE=path`` prints a table; it takes two minutes.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.service import MARKS, PROJECT, Target, level, target

AT_ONCE: Final = 50
WARMUP_RUNS: Final = 100
IDLE_SECONDS: Final = 8
# ms of CPU a second; a service that uses more is at work.
MOST_IDLE: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run cost in one round.

    Attributes:
        service: CPU of the service, ms.
        net: The same without what the service uses when it is idle.
        database: CPU of Postgres, ms.
        wal: Bytes of WAL.
    """

    service: float
    net: float
    database: float
    wal: float


async def read_wal_position(to: Target) -> int:
    """Return how many bytes of WAL the database has written."""
    async with await psycopg.AsyncConnection.connect(to.database, autocommit=True) as connection:
        row = await (await connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")).fetchone()
    return int(row[0]) if row else 0


async def measure_idle(targets: Mapping[str, Target]) -> dict[str, float]:
    """Return what each service uses when nobody asks it, in ms of CPU a second.

    After their start they learn and index for a while: wait until all are idle.
    """
    while True:
        before = {name: to.cpu_seconds for name, to in targets.items()}
        await asyncio.sleep(IDLE_SECONDS)
        idle = {name: 1e3 * (to.cpu_seconds - before[name]) / IDLE_SECONDS for name, to in targets.items()}
        if max(idle.values()) < MOST_IDLE:
            return idle


async def measure(to: Target, way: str, runs: int, idle: float) -> Cost:
    """Hold conversations, 50 at a time.

    Args:
        to: The service.
        way: The route.
        runs: How many conversations.
        idle: What the service uses when it is idle, ms a second.

    Raises:
        SystemExit: One of them failed.
    """
    wal, service, database = await read_wal_position(to), to.cpu_seconds, to.database_cpu_seconds
    found = await level(to, way, AT_ONCE, runs)
    if found.failed:
        sys.exit(f"{found.failed} of {runs} runs failed")
    used = 1e3 * (to.cpu_seconds - service)
    return Cost(
        service=used / runs,
        net=(used - idle * found.seconds) / runs,
        database=1e3 * (to.database_cpu_seconds - database) / runs,
        wal=(await read_wal_position(to) - wal) / runs,
    )


def print_costs(console: Console, costs: dict[tuple[str, str], list[Cost]]) -> None:
    """Print the cheapest round of each way and checkout."""
    table = Table(
        title=f"Cost of a run of seven steps and 80 tokens, {AT_ONCE} at once; load {os.getloadavg()[0]:.1f}"
    )
    for column in (
        "way",
        "checkout",
        "service, ms CPU",
        "without idle",
        "all rounds",
        "Postgres, ms CPU",
        "WAL, KB",
    ):
        table.add_column(column, justify="right")
    for (way, name), rounds in costs.items():
        table.add_row(
            *(way, name, f"{min(cost.service for cost in rounds):.2f}"),
            f"{min(cost.net for cost in rounds):.2f}",
            " ".join(f"{cost.service:.1f}" for cost in rounds),
            f"{min(cost.database for cost in rounds):.2f}",
            f"{min(cost.wal for cost in rounds) / 1_024:.1f}",
        )
    console.print(table)


async def compare(checkouts: Sequence[Path], ways: Sequence[str], rounds: int, runs: int) -> None:
    """Measure the checkouts in turn, and print."""
    costs: dict[tuple[str, str], list[Cost]] = {}
    async with contextlib.AsyncExitStack() as stack:
        targets: dict[str, Target] = {}
        for number, checkout in enumerate(checkouts):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-bench-"))
            name = "this" if checkout == PROJECT else f"baseline {number}"
            targets[name] = await stack.enter_async_context(target(Path(folder), AT_ONCE, project=checkout))
        for to in targets.values():
            await level(to, "invoke", AT_ONCE, WARMUP_RUNS)
        idle = await measure_idle(targets)
        for way in ways:
            for number in range(rounds):
                # In turn, and each of them first in every other round.
                for name, to in list(targets.items())[:: 1 if number % 2 else -1]:
                    costs.setdefault((way, name), []).append(await measure(to, way, runs, idle[name]))
    console = Console()
    console.width = max(console.width, 150)
    for name, milliseconds in idle.items():
        console.print(f"{name}, idle: {milliseconds:.1f} ms CPU a second")
    print_costs(console, costs)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Compare what a run costs here and in another checkout.")
    parser.add_argument("--baseline", type=Path, nargs="*", default=[], help="checkouts of other commits")
    parser.add_argument("--ways", nargs="*", choices=MARKS, default=list(MARKS), help="routes of LangServe")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--runs", type=int, default=200, help="of a round")
    given = parser.parse_args()
    checkouts = [*(path.resolve() for path in given.baseline), PROJECT]
    uvloop.run(compare(checkouts, given.ways, given.rounds, given.runs))


if __name__ == "__main__":
    main()
