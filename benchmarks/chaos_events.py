"""``make chaos-events``: kill service, broker connection and receiver at random while the CRM sends commands.

One replica takes ``message.received`` commands from RabbitMQ and tells of its events over RabbitMQ and to a
webhook. This process is the CRM: it sends commands, consumes the events on a connection of its own, and is
the webhook's receiver. At random moments the service is killed (``kill -9``) and started again, or its way to
the broker is cut, or the receiver's port is closed, for up to two seconds. At the end every command must have
been answered once, and every event in the outbox received both ways: at least once, and the first times of
each thread's events in their order. Otherwise the command stops with exit code 1.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

import aio_pika
import httpx
import uvicorn
from fastapi import FastAPI, Request
from pydantic import SecretStr

from benchmarks.chaos import PATIENCE_SECONDS, PROJECT
from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.logging import configure_logging
from core.postgres import Pool
from core.settings import DatabaseSettings, LogSettings
from tests.support.servers import BROKER_ADDRESS, Proxy, proxy_to

CONTACTS: Final = 10
COMMANDS_PER_SECOND: Final = 3.0
MOST_SECONDS_AWAY: Final = 2.0
MESSAGES: Final = (
    "Where is my invoice for October?",
    "My export of contacts fails with an error.",
    "Thanks, that helped.",
    "I want to speak with a person.",
)
EVENTS_SQL: Final = "SELECT id::text, thread_id, sequence, type, data FROM outbox.events ORDER BY position"
PENDING_SQL: Final = """
SELECT (SELECT count(*) FROM outbox.deliveries WHERE status = 'pending') AS webhooks,
       (SELECT count(*) FROM outbox.events WHERE is_unpublished) AS published
"""
# At the end, nobody waits for the pauses of what failed.
MAKE_DUE_SQL: Final = """
UPDATE outbox.deliveries SET due_at = now() WHERE status = 'pending' AND due_at < 'infinity' AND error <> ''
"""


@dataclass(slots=True)
class Channel:
    """What the CRM received one way: the ids of events in order, by thread."""

    received: list[dict[str, Any]] = field(default_factory=list)

    def take(self, event: dict[str, Any]) -> None:
        """Note an event."""
        self.received.append(event)

    def find_faults(self, events: list[dict[str, Any]]) -> list[str]:
        """Return what is lost or came out of order."""
        ids = {event["id"] for event in self.received}
        faults = [f"lost {event['type']} {event['id']}" for event in events if event["id"] not in ids]
        firsts: defaultdict[str, list[int]] = defaultdict(list)
        for event in self.received:
            sequence = int(event["sequence"])
            if sequence not in firsts[event["subject"]]:
                firsts[event["subject"]].append(sequence)
        faults += [f"{thread}: {order}" for thread, order in firsts.items() if order != sorted(order)]
        return faults


@dataclass(slots=True)
class World:
    """Everything around the service, and the service."""

    database: str
    pool: Pool
    proxy: Proxy
    settings: dict[str, str]
    port: int
    channel: aio_pika.abc.AbstractChannel
    queue: str
    published: Channel = field(default_factory=Channel)
    hooked: Channel = field(default_factory=Channel)
    process: Process | None = None
    url: str = ""
    receiver: "tuple[uvicorn.Server, asyncio.Task[None]] | None" = None
    sent: int = 0

    async def start_service(self) -> None:
        """Start the service and wait for its address."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "server.py", cwd=PROJECT, env=self.settings, stdout=PIPE, stderr=DEVNULL
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.process.stdout and (line := (await self.process.stdout.readline()).decode()):
                if "docs" in line and "http://" in line:
                    self.url = line.split()[-1].removesuffix("/docs")
                    return
        raise SystemExit("the service does not start")

    async def kill_service(self) -> None:
        """Kill the service and start it again."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        await self.start_service()

    async def cut_broker(self, seconds: float) -> None:
        """Cut the service's way to the broker for a while."""
        await self.proxy.cut()
        await asyncio.sleep(seconds)
        await self.proxy.open()

    async def close_receiver(self, seconds: float) -> None:
        """Close the webhook's port for a while, in the middle of what it is receiving."""
        await self.stop_receiver()
        await asyncio.sleep(seconds)
        await self.start_receiver()

    async def start_receiver(self) -> None:
        """Receive webhooks."""
        app = FastAPI()

        @app.post("/hooks")
        async def take(request: Request) -> None:
            self.hooked.take(json.loads(await request.body()))

        config = uvicorn.Config(app, port=self.port, log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        self.receiver = server, asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(0.01)

    async def stop_receiver(self) -> None:
        """Stop at once, whatever is being received."""
        if self.receiver:
            server, task = self.receiver
            server.should_exit = server.force_exit = True
            await task

    async def take_event(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        """Take an event off the broker."""
        self.published.take(json.loads(message.body))
        await message.ack()

    async def send_commands(self, chance: random.Random) -> None:
        """Send commands until cancelled."""
        while True:
            command = {
                "tenant": "default",
                "contact_id": f"contact-{chance.randrange(CONTACTS)}",
                "message": chance.choice(MESSAGES),
                "message_id": f"m-{self.sent}",
                "channel_id": "chaos",
            }
            body = aio_pika.Message(
                json.dumps(command).encode(),
                type="message.received",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await self.channel.default_exchange.publish(body, self.queue)
            self.sent += 1
            await asyncio.sleep(chance.expovariate(COMMANDS_PER_SECOND))


async def main(kills: int, seed: int, minutes: float) -> int:
    """Disturb the service so often, or for so long; return the exit code."""
    configure_logging(LogSettings(level="error"))
    chance, disturbed, began = random.Random(seed), Counter[str](), perf_counter()  # noqa: S311 - no secret
    async with _world() as world:
        await world.start_service()
        await world.start_receiver()
        async with httpx.AsyncClient(base_url=world.url) as http:
            hook = {"url": f"http://127.0.0.1:{world.port}/hooks"}
            (await http.post("/v1/webhooks", json=hook)).raise_for_status()
        sending = asyncio.create_task(world.send_commands(chance))
        while disturbed.total() < kills and perf_counter() - began < 60 * minutes:
            await asyncio.sleep(chance.uniform(0, 2))
            kind = chance.choice(("service", "broker", "receiver"))
            seconds = chance.uniform(0, MOST_SECONDS_AWAY)
            match kind:
                case "service":
                    await world.kill_service()
                case "broker":
                    await world.cut_broker(seconds)
                case _:
                    await world.close_receiver(seconds)
            disturbed[kind] += 1
            print(f"{disturbed.total()}: {kind}, after {perf_counter() - began:.0f} s", flush=True)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        events = await _settle(world)
        faults = _find_unanswered(world, events)
        for name, channel in (("broker", world.published), ("webhook", world.hooked)):
            repeated = len(channel.received) - len({event["id"] for event in channel.received})
            print(f"{name}: {len(channel.received)} received, {repeated} of them again")
            faults += [f"{name}: {fault}" for fault in channel.find_faults(events)]
        print(
            f"{disturbed.total()} disturbances ({dict(disturbed)}) in {perf_counter() - began:.0f} s, "
            f"seed {seed}: {world.sent} commands, {len(events)} events, {len(faults)} faults"
        )
        for fault in faults[:20]:
            print(f"FAILED: {fault}")
    return 1 if faults else 0


async def _settle(world: World) -> list[dict[str, Any]]:
    """Wait until every command is answered and everything is delivered; return the events."""
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        while True:
            events = await _fetch(world.pool, EVENTS_SQL)
            [pending] = await _fetch(world.pool, PENDING_SQL)
            if not (_find_unanswered(world, events) or pending["webhooks"] or pending["published"]):
                break
            async with world.pool.connection() as connection:
                await connection.execute(MAKE_DUE_SQL)
            await asyncio.sleep(0.5)
    # What was confirmed last is on its way to the consumer.
    await asyncio.sleep(2)
    return events


def _find_unanswered(world: World, events: list[dict[str, Any]]) -> list[str]:
    answers = Counter(event["data"]["message_id"] for event in events if event["type"] == "message.answered")
    return [
        f"m-{number} was answered {answers[f'm-{number}']} times"
        for number in range(world.sent)
        if answers[f"m-{number}"] != 1
    ]


async def _fetch(pool: Pool, query: str) -> list[dict[str, Any]]:
    async with pool.connection() as connection:
        return await (await connection.execute(query.encode())).fetchall()


@asynccontextmanager
async def _world() -> AsyncIterator[World]:
    """Start a database server, the way to the broker, and the CRM's queues."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-chaos-")))
        url = await stack.enter_async_context(embedded_postgres_server(folder))
        pool = await stack.enter_async_context(open_pool(url, DatabaseSettings(url=SecretStr(url))))
        proxy = await stack.enter_async_context(proxy_to(BROKER_ADDRESS))
        own = await aio_pika.connect("amqp://guest:guest@{}:{}/".format(*BROKER_ADDRESS))
        await stack.enter_async_context(own)
        channel = await own.channel()
        name = f"chaos.{uuid4().hex}"
        exchange = await channel.declare_exchange(name, "topic", durable=True)
        events, commands, dead = [
            await channel.declare_queue(each, durable=True)
            for each in (f"{name}.crm", f"{name}.commands", f"{name}.commands.dead")
        ]
        await events.bind(exchange, "#")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        kept = {each: os.environ[each] for each in ("PATH", "HOME", "TMPDIR") if each in os.environ}
        world = World(
            database=url,
            pool=pool,
            proxy=proxy,
            port=port,
            channel=channel,
            queue=commands.name,
            settings={
                **kept,
                "DATABASE_URL": url,
                "MODEL": "offline",
                "PORT": "0",
                "LOG_LEVEL": "error",
                "RUN_CLAIM_SECONDS": "2",
                "CRM_ARTICLES_SYNC_SECONDS": "0",
                "AMQP_URL": f"amqp://guest:guest@127.0.0.1:{proxy.port}/",
                "AMQP_EVENTS_EXCHANGE": name,
                "AMQP_COMMANDS_QUEUE": commands.name,
                "WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{port}",
                "WEBHOOK_TIMEOUT_SECONDS": "2",
            },
        )
        await events.consume(world.take_event)
        try:
            yield world
        finally:
            if world.process and world.process.returncode is None:
                world.process.kill()
                await world.process.wait()
            await world.stop_receiver()
            for queue in (events, commands, dead):
                await queue.delete(if_unused=False, if_empty=False)
            await exchange.delete()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill what carries events at random; none is lost.")
    parser.add_argument("--kills", type=int, default=50, help="how often something is disturbed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--minutes", type=float, default=15, help="after which nothing more is disturbed")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.kills, given.seed, given.minutes)))
