"""Measure what one tenant's floods cost another: ``make bench-fairness`` (two minutes).

A real service process with API keys on an embedded Postgres of its own. Tenant B sends one message after the
other, alone and during each flood of tenant A. The goal: B's p95 during a flood is at most twice its own
undisturbed p95, plus 100 ms.

All share the same cores. A's clients stand for other machines, so that they are a process of their own, of
low priority: what is measured is the service and not how its clients wait for each other.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.clients import Answer, ask, build_request
from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.postgres import Pool
from core.settings import DatabaseSettings
from service.auth.api_keys import KeyStore
from service.cli.keys import record_key_change

PROJECT: Final = Path(__file__).resolve().parent.parent
# B's messages in each phase, how long B sends them, and how long the last one may take after that.
MESSAGES: Final = 40
PHASE_SECONDS: Final = 12.0
LAST_SECONDS: Final = 6.0
# A flood is under way before B begins, and its runs stop at their next step before the next one.
LEAD_SECONDS: Final = 3.0
UNDISTURBED: Final = "undisturbed"
ALLOWED_FACTOR: Final = 2.0
ALLOWED_SECONDS: Final = 0.1
LONG_CHARACTERS: Final = 20_000
START_SECONDS: Final = 60.0

# The numbers differ from message to message, so that no answer comes from a cache.
_QUESTIONS: Final = (
    "Where is my order {number}?",
    "My invoice {number} is wrong, please have a look.",
    "Exporting {number} contacts ends with Error 500.",
    "When does my plan with {number} users renew?",
)
_WORDS: Final = [
    "order",
    "invoice",
    "export",
    "contact",
    "delivery",
    "address",
    "refund",
    "ticket",
    "account",
    "error",
    "plan",
    "user",
    "team",
    "report",
    "late",
    "missing",
    "broken",
    "again",
    "yesterday",
    "tomorrow",
    "please",
    "thanks",
    "because",
    "although",
    "nobody",
    "answered",
    "anything",
]

# Of the process that floods; a third of the time that another process gets on a busy core.
FLOOD_NICENESS: Final = 5
_KEY: Final = "BENCHMARK_KEY"

Flood: TypeAlias = Callable[["Target"], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The service that is measured, as a tenant sees it.

    Attributes:
        address: Its host and port.
        key: The tenant's API key.
        answers: The tenant's answers by status; 0: there was none.
    """

    address: tuple[str, int]
    key: str
    answers: Counter[int] = field(default_factory=Counter)

    async def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Post JSON and read the answer to its end."""
        answer = await ask(self.address, path, body, token=b"{", end=b"}", key=self.key)
        self.answers[answer.status] += 1
        return answer


@dataclass(frozen=True, slots=True)
class Phase:
    """B's answers during one flood, and A's answers by status."""

    name: str
    seconds: Sequence[float]
    failed: int
    flood: Mapping[int, int]

    def percentile(self, share: float) -> float:
        """Return a percentile of B's answer times in seconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def flood_with_long_messages(to: Target) -> None:
    """Send messages of 20,000 characters, four at a time."""

    async def client(chosen: random.Random) -> None:
        while True:
            words = " ".join(chosen.choices(_WORDS, k=LONG_CHARACTERS // 4))
            await to.post("/v1/messages", _message(words[:LONG_CHARACTERS]))

    await asyncio.gather(*(client(random.Random(number)) for number in range(4)))  # noqa: S311 - no secret


async def flood_with_batches(to: Target) -> None:
    """Send batches of a hundred questions, two at a time."""

    async def client() -> None:
        while True:
            inputs = [_message(_question(next(_numbers))) for _ in range(100)]
            await to.post("/coordinator/batch", {"inputs": inputs})

    await asyncio.gather(client(), client())


async def flood_with_slow_readers(to: Target) -> None:
    """Open 60 streams and read nothing; open another when the service ends one."""

    async def client() -> None:
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket() as connection:
                connection.setblocking(False)  # noqa: FBT003 - the standard library's
                # The kernel holds little for a client that does not read.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                await loop.sock_connect(connection, to.address)
                body = {"input": _message(_question(next(_numbers)))}
                request = build_request("/coordinator/stream_events", body, key=to.key)
                await loop.sock_sendall(connection, request)
                to.answers[200] += 1
                await _wait_until_closed(connection)

    await asyncio.gather(*(client() for _ in range(60)))


async def flood_with_threads(to: Target) -> None:
    """Send a thousand messages at once, each on a thread of its own, and another one for each answer."""

    async def client() -> None:
        while True:
            await to.post("/v1/messages", _message(_question(next(_numbers))))

    await asyncio.gather(*(client() for _ in range(1_000)))


FLOODS: Final[Mapping[str, Flood]] = {
    "long messages": flood_with_long_messages,
    "batches": flood_with_batches,
    "slow readers": flood_with_slow_readers,
    "1,000 threads": flood_with_threads,
}

# Apart in the two processes.
_numbers = count(1_000 + 1_000_000 * (os.getpid() % 1_000))


def _question(number: int) -> str:
    return _QUESTIONS[number % len(_QUESTIONS)].format(number=number)


def _message(text: str) -> dict[str, Any]:
    return {"message": text, "contact_id": f"contact-{next(_numbers)}"}


async def _wait_until_closed(connection: socket.socket) -> None:
    """Wait until the other side has closed a connection, without reading what it sent."""
    while True:
        await asyncio.sleep(0.25)
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        if state[0] != _ESTABLISHED:
            return


# The first byte of Linux's tcp_info.
_ESTABLISHED: Final = 1


async def flood_until_told(to: Target, flood: Flood) -> None:
    """Flood until standard input is closed, and print the answers by status as JSON."""
    os.nice(FLOOD_NICENESS)
    flooding = asyncio.ensure_future(flood(to))
    print("flooding", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    flooding.cancel()
    await asyncio.wait([flooding])
    print(json.dumps(to.answers))


@contextlib.asynccontextmanager
async def run_flood(name: str, to: Target) -> AsyncIterator[Counter[int]]:
    """Flood from a process of its own, while the context is open; then the counter has the answers."""
    answers: Counter[int] = Counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.fairness", "--flood", name, "--port", str(to.address[1])),
        cwd=PROJECT,
        env={**os.environ, _KEY: to.key},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdout:
            await process.stdout.readline()
        await asyncio.sleep(LEAD_SECONDS)
        yield answers
    finally:
        told, _ = await process.communicate(b"")
        answers.update({int(status): number for status, number in json.loads(told or "{}").items()})
        await asyncio.sleep(LEAD_SECONDS)


async def measure(name: str, target: Target, other: Target) -> Phase:
    """Have B send its messages, while A floods; ``UNDISTURBED``: while A does nothing."""
    seconds: list[float] = []
    failed = 0
    flood = run_flood(name, other) if name in FLOODS else contextlib.nullcontext(Counter[int]())
    async with flood as answers:
        ends = time.monotonic() + PHASE_SECONDS
        while len(seconds) < MESSAGES and time.monotonic() < ends:
            started = time.monotonic()
            is_answered = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ends + LAST_SECONDS - started):
                    answer = await target.post("/v1/messages", _message(_question(next(_numbers))))
                    is_answered = answer.status == 200 and answer.complete  # noqa: PLR2004
            seconds.append(time.monotonic() - started)
            failed += not is_answered
    return Phase(name, seconds, failed, answers)


@contextlib.asynccontextmanager
async def serve(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[tuple[Target, Target]]:
    """Start the service, and return it as the tenants A and B see it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with embedded_postgres_server(folder) as url:
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "DATABASE_URL": url,
            "PORT": str(port),
            "AUTH_API_KEYS": "true",
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "warning",
            **settings,
        }
        with (folder / "service.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "server.py", cwd=PROJECT, env=environment, stdout=log, stderr=log
            )
        try:
            await _wait_until_ready(f"http://127.0.0.1:{port}", process)
            async with open_pool(url, DatabaseSettings(pool_min_size=0, pool_max_size=1)) as pool:
                keys = [await _create_key(pool, tenant) for tenant in ("a", "b")]
            flooding, measured = (Target(address=("127.0.0.1", port), key=key) for key in keys)
            yield flooding, measured
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def _wait_until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as http:
        while True:
            if process.returncode is not None:
                sys.exit(f"the service ended with {process.returncode}")
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(f"{url}/health/ready")).is_success:
                    return
            await asyncio.sleep(0.2)


async def _create_key(pool: Pool, tenant: str) -> str:
    return (await KeyStore(pool, record_key_change).create(tenant, ["runs"])).text


async def run(console: Console, chosen: Sequence[str], settings: Mapping[str, str]) -> bool:
    """Measure, print, and return whether the goal is met."""
    with tempfile.TemporaryDirectory(prefix="ventros-bench-") as folder:
        async with serve(Path(folder), settings) as (flooding, measured):
            # The router's fit and the first connections.
            for number in range(8):
                await measured.post("/v1/messages", _message(_question(number)))
            load = os.getloadavg()[0]
            phases = [await measure(name, measured, flooding) for name in (UNDISTURBED, *chosen)]
    allowed = ALLOWED_FACTOR * phases[0].percentile(0.95) + ALLOWED_SECONDS
    table = Table(title=f"Tenant B's answers while tenant A floods; p95 allowed: {1_000 * allowed:,.0f} ms")
    for column in ("A", "B's messages", "failed", "p50", "p95", "longest", "goal", "A's answers by status"):
        table.add_column(column, justify="left" if column.startswith("A") else "right")
    for phase in phases:
        is_met = phase.percentile(0.95) <= allowed and not phase.failed
        table.add_row(
            *(phase.name, str(len(phase.seconds)), str(phase.failed)),
            *(f"{1_000 * phase.percentile(share):,.0f} ms" for share in (0.5, 0.95, 1.0)),
            "met" if is_met else "missed",
            ", ".join(f"{status}: {number:,}" for status, number in sorted(phase.flood.items())),
        )
    console.print(table)
    console.print(f"load of the machine before: {load:.1f} on {os.cpu_count()} cores")
    return all(phase.percentile(0.95) <= allowed and not phase.failed for phase in phases)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Measure what one tenant's floods cost another.")
    parser.add_argument("--floods", nargs="*", choices=FLOODS, default=list(FLOODS), help="of tenant A")
    parser.add_argument("--setting", action="append", default=[], help="NAME=value of the service")
    parser.add_argument("--flood", choices=FLOODS, help="flood a service that runs, with the key in $" + _KEY)
    parser.add_argument("--port", type=int, help="of that service")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.flood:
            target = Target(address=("127.0.0.1", given.port), key=os.environ[_KEY])
            runner.run(flood_until_told(target, FLOODS[given.flood]))
            return 0
        console = Console()
        console.width = max(console.width, 140)
        settings = dict(each.split("=", 1) for each in given.setting)
        return 0 if runner.run(run(console, given.floods, settings)) else 1


if __name__ == "__main__":
    sys.exit(main())
