"""``make chaos``: kill -9 replicas at random moments of the ReAct demo, and send the request to the other.

Two replicas share a database. This process is the client, which asks them in turn, and the CRM. Neither it
nor the database server is killed. Each case is the demo's task, in which the agent sends the customer a
message, or in every other case creates a ticket. It is sent with an ``Idempotency-Key``. The replica that
received it is killed and started again; meanwhile the request is sent to the other until it is answered.
After each case the CRM must have exactly one more message or ticket, otherwise the command stops with exit
code 1.
"""

import argparse
import asyncio
import os
import random
import re
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import httpx
import psycopg
import uvicorn
from psycopg import sql

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.logging import configure_logging
from core.postgres import Pool
from core.settings import CrmSettings, DatabaseSettings, LogSettings
from dev_crm.app import create_crm
from dev_crm.migrations import migrate
from graphs.registry import REGISTRY
from service.audit.chain import verify_chains
from service.cli.serve import ServerWithoutSignals
from tools.crm.client import SOURCE

PROJECT: Final = Path(__file__).resolve().parents[1]
DEMO: Final = REGISTRY["react"].example
# What is asked for in turn, and the column of MADE_SQL that counts its effect.
CASES: Final = (
    ("messages", DEMO),
    ("tickets", {**DEMO, "task": f"{DEMO['task']} Create an engineering ticket."}),
)
# Undisturbed runs at the beginning, which measure how long a run takes.
CALM: Final = 5
# The latest moment of a kill, as a multiple of the median duration of a run.
LATEST: Final = 1.1
REPLICAS: Final = 2
# A run whose replica was killed is taken over after so long.
CLAIM_SECONDS: Final = "2"
# More than a start and a run take on a busy machine.
PATIENCE_SECONDS: Final = 120

MADE_SQL: Final = """
SELECT (SELECT count(*) FROM crm.engineering_tickets WHERE source = %(source)s) AS tickets,
       (SELECT count(*) FROM crm.messages WHERE source = %(source)s) AS messages
"""
# What the service had done when it was killed.
REACHED_SQL: Final = """
SELECT (SELECT count(*) FROM checkpoints WHERE thread_id = %(thread)s) AS checkpoints,
       (SELECT count(*) FROM audit.effects WHERE thread_id = %(thread)s AND state = 'begun') AS begun,
       (SELECT count(*) FROM audit.effects WHERE thread_id = %(thread)s AND state = 'finished') AS finished
"""
ATTEMPTS_SQL: Final = """
SELECT coalesce(max(attempt), 0) AS attempts FROM runs.runs WHERE thread_id = %(thread)s
"""
AGAIN_SQL: Final = "SELECT count(*) AS n FROM audit.effects WHERE attempts > 1"


@dataclass(slots=True)
class Chaos:
    """The replicas, what is around them, and what has happened so far.

    Attributes:
        crm: The pool of the CRM's database.
        own: The pool of the replicas' database.
        settings: The replicas' environment variables.
        replicas: The replicas; the first is asked next.
        reached: How far the killed runs had come, counted.
        attempts: How many replicas executed each run, counted.
    """

    crm: Pool
    own: Pool
    settings: dict[str, str]
    replicas: deque["Replica"] = field(default_factory=deque)
    reached: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)

    def choose(self) -> "Replica":
        """Return the replica whose turn it is."""
        self.replicas.rotate(-1)
        return self.replicas[-1]


@dataclass(slots=True)
class Replica:
    """A running service."""

    process: Process
    url: str

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.returncode is None

    async def kill(self) -> None:
        """Kill the process as the kernel does when memory runs out: no handler runs."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


async def main(kills: int, seed: int, minutes: float) -> int:
    """Run this many cases, each with a kill, or as many as the time allows.

    Returns:
        The exit code: 1 if an effect happened twice, or not at all.
    """
    configure_logging(LogSettings(level="error"))
    chance = random.Random(seed)  # noqa: S311 - no secret
    began = perf_counter()
    async with _outside() as chaos:
        chaos.replicas.extend([await _started(chaos.settings) for _ in range(REPLICAS)])
        usual = median([await _timed(chaos, number) for number in range(CALM)])
        print(f"a run takes {usual:.2f} s; kills come within {LATEST * usual:.2f} s; seed {seed}", flush=True)
        done = 0
        while done < kills and perf_counter() - began < 60 * minutes:
            await _case(chaos, CALM + done, chance.uniform(0, LATEST * usual))
            done += 1
            if not await _made(chaos, cases=CALM + done):
                return 1
            print(f"{done}: one effect, after {perf_counter() - began:.0f} s", flush=True)
        again = await _one(chaos.own, AGAIN_SQL)
        for replica in chaos.replicas:
            replica.process.terminate()
        codes = [await replica.process.wait() for replica in chaos.replicas]
        verdicts = [verdict async for verdict in verify_chains(chaos.own)]
        print(f"{done} kills in {perf_counter() - began:.0f} s: one effect for each case")
        print(f"effects that were begun, killed, and made again under their key: {again['n']}")
        for state, count in sorted(chaos.reached.items()):
            print(f"  {count:4d}  {state}")
        for attempts, count in sorted(chaos.attempts.items()):
            print(f"  {count:4d}  executed by {attempts} {'replica' if attempts == 1 else 'replicas'}")
        for verdict in verdicts:
            print(f"audit of {verdict.tenant}: {verdict.entries} entries, {verdict.fault or 'whole'}")
    return 1 if any(codes) or any(verdict.fault for verdict in verdicts) else 0


async def _case(chaos: Chaos, number: int, moment: float) -> None:
    """Send a request, kill the replica that received it, and send it to the others until it is answered."""
    killed, thread = chaos.choose(), f"case-{number}"
    asking = asyncio.create_task(_ask(killed, number))
    await asyncio.sleep(moment)
    chaos.replicas.remove(killed)
    await killed.kill()
    with suppress(httpx.TransportError):
        await asking
    reached = await _one(chaos.own, REACHED_SQL, thread=thread)
    if asking.exception() is None:
        chaos.reached["after its answer"] += 1
    elif not reached["checkpoints"]:
        chaos.reached["before its first checkpoint"] += 1
    else:
        effects = f"{reached['finished']} effects finished, {reached['begun']} begun"
        chaos.reached[f"within the run: {effects}"] += 1
    # The killed replica comes back while the other takes its run over.
    starting = asyncio.create_task(_started(chaos.settings))
    answer = await _ask(chaos.choose(), number)
    chaos.replicas.append(await starting)
    if not answer["success"]:
        raise SystemExit(f"{thread} was answered without success: {answer['final_answer']}")
    chaos.attempts[(await _one(chaos.own, ATTEMPTS_SQL, thread=thread))["attempts"]] += 1


async def _ask(replica: Replica, number: int) -> dict[str, Any]:
    thread, (_, task) = f"case-{number}", CASES[number % len(CASES)]
    body = {"input": task, "config": {"configurable": {"thread_id": thread}}}
    async with httpx.AsyncClient(base_url=replica.url, timeout=PATIENCE_SECONDS) as http:
        answered = await http.post("/react/invoke", json=body, headers={"Idempotency-Key": thread})
    output: dict[str, Any] = answered.raise_for_status().json()["output"]
    return output


async def _timed(chaos: Chaos, number: int) -> float:
    began = perf_counter()
    await _ask(chaos.choose(), number)
    return perf_counter() - began


async def _made(chaos: Chaos, *, cases: int) -> bool:
    made = await _one(chaos.crm, MADE_SQL, source=SOURCE)
    expected = Counter(CASES[number % len(CASES)][0] for number in range(cases))
    if made == expected:
        return True
    print(f"FAILED: expected {dict(expected)} after {cases} cases; the CRM has {made}")
    return False


async def _one(pool: Pool, query: str, **parameters: object) -> dict[str, Any]:
    async with pool.connection() as connection:
        row = await (await connection.execute(query.encode(), parameters)).fetchone()
    if row is None:
        raise SystemExit(f"no row: {query}")
    return row


async def _started(settings: dict[str, str]) -> Replica:
    """Start a replica and wait until it reports its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "server.py", cwd=PROJECT, env=settings, stdout=PIPE, stderr=DEVNULL
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        while process.stdout and (line := (await process.stdout.readline()).decode()):
            if found := re.search(r"docs +(http://\S+)/docs", line):
                return Replica(process, found[1])
    raise SystemExit("a replica does not start")


@asynccontextmanager
async def _outside() -> AsyncIterator[Chaos]:
    """Start a database server and the CRM, in a database of its own; both outlive the replicas."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-chaos-")))
        server = await stack.enter_async_context(embedded_postgres_server(folder))
        urls = [await _database(server, name) for name in ("service", "crm")]
        own, crm = [
            await stack.enter_async_context(open_pool(url, DatabaseSettings(pool_min_size=1))) for url in urls
        ]
        await migrate(crm)
        app = create_crm(crm, CrmSettings().api_key, requests_per_minute=10**6)
        address = await stack.enter_async_context(_served(app))
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        chaos = Chaos(
            crm=crm,
            own=own,
            settings={
                **kept,
                "DATABASE_URL": urls[0],
                "CRM_API_BASE": address,
                "MODEL": "offline",
                "PORT": "0",
                "LOG_LEVEL": "error",
                "RUN_CLAIM_SECONDS": CLAIM_SECONDS,
            },
        )
        try:
            yield chaos
        finally:
            # Those that are left when a case failed.
            for replica in chaos.replicas:
                if replica.is_running:
                    await replica.kill()


async def _database(server: str, name: str) -> str:
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.replace("/postgres?", f"/{name}?", 1)


@asynccontextmanager
async def _served(app: Any) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ServerWithoutSignals(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        ended = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await ended


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill replicas at random moments; nothing is done twice.")
    parser.add_argument("--kills", type=int, default=100, help="how often")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--minutes", type=float, default=15, help="after which no more are killed")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.kills, given.seed, given.minutes)))
