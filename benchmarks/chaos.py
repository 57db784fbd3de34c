"""``make chaos``: kill -9 a service at random moments of the ReAct demo, restart it, send the request again.

The service is a process of its own. This process is the client and the CRM; neither it nor the database
server is killed. Each case is the demo's task, in which the agent creates a ticket and sends a message. It is
sent with an ``Idempotency-Key``, and sent again until it is answered. After each case the CRM must have
exactly one more ticket and one more message, otherwise the command stops with exit code 1.
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
from collections import Counter
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
CASE: Final = {
    **DEMO,
    "task": f"{DEMO['task']} Create an engineering ticket and send the customer the solution.",
}
# Undisturbed runs at the beginning, which measure how long a run takes.
CALM: Final = 5
# The latest moment of a kill, as a multiple of the median duration of a run.
LATEST: Final = 1.1
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
AGAIN_SQL: Final = "SELECT count(*) AS n FROM audit.effects WHERE attempts > 1"


@dataclass(slots=True)
class Chaos:
    """What is around the service, and what has happened so far.

    Attributes:
        crm: The pool of the CRM's database.
        own: The pool of the service's database.
        settings: The service's environment variables.
        reached: How far the killed runs had come, counted.
    """

    crm: Pool
    own: Pool
    settings: dict[str, str]
    reached: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Service:
    """A running service."""

    process: Process
    url: str

    async def kill(self) -> None:
        """Kill the process as the kernel does when memory runs out: no handler runs."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


async def main(kills: int, seed: int) -> int:
    """Run this many cases, each with a kill.

    Returns:
        The exit code: 1 if an effect happened twice, or not at all.
    """
    configure_logging(LogSettings(level="error"))
    chance = random.Random(seed)  # noqa: S311 - no secret
    began = perf_counter()
    async with _outside() as chaos:
        service = await _started(chaos.settings)
        usual = median([await _timed(service, f"calm-{number}") for number in range(CALM)])
        print(f"a run takes {usual:.2f} s; kills come within {LATEST * usual:.2f} s; seed {seed}", flush=True)
        for number in range(kills):
            thread = f"case-{number}"
            service = await _case(service, chaos, thread, chance.uniform(0, LATEST * usual))
            if not await _made(chaos, expected=CALM + number + 1):
                print(f"FAILED at {thread}")
                return 1
            print(f"{thread}: one ticket, one message, after {perf_counter() - began:.0f} s", flush=True)
        again = await _one(chaos.own, AGAIN_SQL)
        service.process.terminate()
        await service.process.wait()
        verdicts = [verdict async for verdict in verify_chains(chaos.own)]
        print(f"{kills} kills in {perf_counter() - began:.0f} s: one ticket and one message for each case")
        print(f"effects that were begun, killed, and made again under their key: {again['n']}")
        for state, count in sorted(chaos.reached.items()):
            print(f"  {count:4d}  {state}")
        for verdict in verdicts:
            print(f"audit of {verdict.tenant}: {verdict.entries} entries, {verdict.fault or 'whole'}")
    return 1 if any(verdict.fault for verdict in verdicts) else 0


async def _case(service: Service, chaos: Chaos, thread: str, moment: float) -> Service:
    """Send a request, kill the service, restart it, and send the request again until it is answered."""
    asking = asyncio.create_task(_asked(service, thread))
    await asyncio.sleep(moment)
    await service.kill()
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
    service = await _started(chaos.settings)
    answer = await _asked(service, thread)
    if not answer["success"]:
        raise SystemExit(f"{thread} was answered without success: {answer['final_answer']}")
    return service


async def _asked(service: Service, thread: str) -> dict[str, Any]:
    body = {"input": CASE, "config": {"configurable": {"thread_id": thread}}}
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE_SECONDS) as http:
        answered = await http.post("/react/invoke", json=body, headers={"Idempotency-Key": thread})
    output: dict[str, Any] = answered.raise_for_status().json()["output"]
    return output


async def _timed(service: Service, thread: str) -> float:
    began = perf_counter()
    await _asked(service, thread)
    return perf_counter() - began


async def _made(chaos: Chaos, *, expected: int) -> bool:
    made = await _one(chaos.crm, MADE_SQL, source=SOURCE)
    if made["tickets"] == made["messages"] == expected:
        return True
    print(f"expected {expected} tickets and {expected} messages; the CRM has {made}")
    return False


async def _one(pool: Pool, query: str, **parameters: object) -> dict[str, Any]:
    async with pool.connection() as connection:
        row = await (await connection.execute(query.encode(), parameters)).fetchone()
    if row is None:
        raise SystemExit(f"no row: {query}")
    return row


async def _started(settings: dict[str, str]) -> Service:
    """Start a service and wait until it reports its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "server.py", cwd=PROJECT, env=settings, stdout=PIPE, stderr=DEVNULL
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        while process.stdout and (line := (await process.stdout.readline()).decode()):
            if found := re.search(r"docs +(http://\S+)/docs", line):
                return Service(process, found[1])
    raise SystemExit("the service does not start")


@asynccontextmanager
async def _outside() -> AsyncIterator[Chaos]:
    """Start a database server and the CRM, in a database of its own; both outlive the service."""
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
        yield Chaos(
            crm=crm,
            own=own,
            settings={
                **kept,
                "DATABASE_URL": urls[0],
                "CRM_API_BASE": address,
                "MODEL": "offline",
                "PORT": "0",
                "LOG_LEVEL": "error",
            },
        )


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
    parser = argparse.ArgumentParser(description="Kill the service at random moments; nothing is done twice.")
    parser.add_argument("--kills", type=int, default=100, help="how often")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.kills, given.seed)))
