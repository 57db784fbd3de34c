"""``make bench-events``: how fast events leave the outbox, over RabbitMQ and to webhooks.

An embedded Postgres (``fsync`` on), the RabbitMQ on this machine (AMQP_URL), and the service's own publisher
and sender in this process. The receiver of webhooks is a process of its own, which verifies signatures. Times
are from the transaction that wrote an event to its receipt.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final
from uuid import uuid4

import aio_pika
import httpx
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from pydantic import SecretStr
from rich.console import Console

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_database
from core.logging import configure_logging
from core.outgoing import GuardedTransport
from core.postgres import Pool
from core.settings import AmqpSettings, DatabaseSettings, LogSettings, WebhookSettings
from memory.database import migrate as migrate_memory
from service.broker.publisher import EXPECT_SQL, EventPublisher
from service.migrations import migrate_rooms
from service.observability.metrics import ServiceMetrics
from service.outbox.catalogue import MessageAnswered
from service.outbox.events import ADD_SQL, NewEvent, dump_events
from service.webhooks.deliveries import DeliveryStore
from service.webhooks.endpoints import EndpointStore
from service.webhooks.sender import WebhookSender
from service.webhooks.signatures import sign

BROKER: Final = "amqp://guest:guest@127.0.0.1:5672/"
# What waits for the broker at first, then comes at a rate.
BACKLOG: Final = 10_000
RATE: Final = 1_000
WEBHOOK_RATE: Final = 100
THREADS: Final = 500
ANSWER: Final = "Your invoice INV-2231 was paid on 3 November; the receipt is attached to your account. " * 2
LEFT_SQL: Final = "SELECT count(*) AS n FROM outbox.events WHERE is_unpublished"


def build_event(number: int) -> NewEvent:
    """Return an event as most are: the answer to a message, of a thread with others."""
    data = MessageAnswered(
        run_id=str(uuid4()),
        graph="coordinator",
        contact_id=str(uuid4()),
        message_id=f"m-{number}",
        session_id=f"thread-{number % THREADS}",
        success=True,
        response=ANSWER,
        agent_used="billing_support",
        path="agent",
        needs_person=False,
        reason=None,
    )
    return NewEvent(data=data, thread_id=f"thread-{number % THREADS}", contact_id=data.contact_id)


async def write(pool: Pool, numbers: Sequence[int]) -> None:
    """Write events in one transaction."""
    async with pool.connection() as connection:
        events = dump_events([build_event(number) for number in numbers])
        await connection.execute(ADD_SQL, {"tenant": "acme", "events": events})


async def write_at(pool: Pool, rate: int, seconds: float, *, at_once: int) -> int:
    """Write events at a rate, some of them in a transaction; return how many."""
    started, written, writing = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (now := time.perf_counter() - started) < seconds:
        while written < now * rate:
            task = asyncio.create_task(write(pool, range(written, written + at_once)))
            writing.add(task)
            task.add_done_callback(writing.discard)
            written += at_once
        await asyncio.sleep(at_once / rate / 2)
    await asyncio.gather(*writing)
    return written


async def measure_broker(pool: Pool, seconds: float) -> None:
    """Print how many events are published with confirms, and how soon."""
    url = os.environ.get("AMQP_URL", BROKER)
    settings = AmqpSettings(url=SecretStr(url), events_exchange=f"bench.{uuid4().hex}")
    received: list[float] = []

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        event = json.loads(message.body)
        received.append(time.time() - datetime.fromisoformat(event["time"]).timestamp())

    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        exchange = await channel.declare_exchange(settings.events_exchange, "topic", durable=True)
        queue = await channel.declare_queue(f"{settings.events_exchange}.crm", durable=True)
        await queue.bind(exchange, "#")
        try:
            async with pool.connection() as database:
                values = {"name": settings.events_exchange, "days": 1}
                await database.execute(EXPECT_SQL, values)
            for start in range(0, BACKLOG, 500):
                await write(pool, range(start, start + 500))
            publisher = EventPublisher(pool, settings, ServiceMetrics())
            started, cpu = time.perf_counter(), time.process_time()
            published = await publisher.publish_all()
            took, cpu = time.perf_counter() - started, time.process_time() - cpu
            Console().print(
                f"broker, backlog: {published / took:,.0f} events/s confirmed, "
                f"{cpu / published * 1e3:.2f} ms of this process's CPU each"
            )
            await queue.purge()
            await queue.consume(take, no_ack=True)
            running = asyncio.create_task(publisher.run())
            started = time.perf_counter()
            written = await write_at(pool, RATE, seconds, at_once=10)
            while len(received) < written:  # noqa: ASYNC110 - it watches a list
                await asyncio.sleep(0.01)
            took = time.perf_counter() - started
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            Console().print(
                f"broker, {RATE:,} events/s for {seconds:g} s: {written:,} received after {took:.1f} s; "
                + describe(received)
            )
        finally:
            await queue.delete(if_unused=False, if_empty=False)
            await exchange.delete()


async def measure_webhooks(pool: Pool, seconds: float) -> None:
    """Print how soon webhooks are received."""
    async with _receiver() as url:
        endpoints = EndpointStore(pool)
        endpoint = await endpoints.create("acme", url=f"{url}/hooks", description="", types=None)
        settings = WebhookSettings(allowed_hosts=url.removeprefix("http://"))
        guard = GuardedTransport(settings.hosts)
        async with httpx.AsyncClient(transport=guard, trust_env=False) as http:
            await http.post(f"{url}/key", content=endpoint.secret)
            sender = WebhookSender(DeliveryStore(pool), http, settings, ServiceMetrics(), guard)
            running = asyncio.create_task(sender.run())
            cpu = time.process_time()
            written = await write_at(pool, WEBHOOK_RATE, seconds, at_once=1)
            latencies: list[float] = []
            while len(latencies) < written:
                await asyncio.sleep(0.1)
                latencies = (await http.get(f"{url}/latencies")).json()
            cpu = time.process_time() - cpu
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        await endpoints.delete("acme", endpoint.id)
        Console().print(
            f"webhooks, {WEBHOOK_RATE} events/s for {seconds:g} s: {len(latencies):,} received, "
            f"{cpu / written * 1e3:.1f} ms of this process's CPU each, the writing included; "
            + describe(latencies)
        )


def describe(seconds: Sequence[float]) -> str:
    """Return the percentiles of latencies."""
    cuts = quantiles(seconds, n=100)
    return f"p50 {median(seconds) * 1e3:.0f} ms, p95 {cuts[94] * 1e3:.0f} ms, p99 {cuts[98] * 1e3:.0f} ms"


def create_receiver() -> FastAPI:
    """Return the receiver's application: it verifies each webhook and notes how old its event is."""
    app, keys, latencies = FastAPI(), list[str](), list[float]()

    @app.post("/key")
    async def set_key(request: Request) -> None:
        keys[:] = [(await request.body()).decode()]

    @app.post("/hooks")
    async def take(request: Request) -> None:
        body, given = await request.body(), request.headers
        expected = sign(
            body, webhook_id=given["webhook-id"], timestamp=int(given["webhook-timestamp"]), keys=keys
        )
        if expected["webhook-signature"] == given["webhook-signature"]:
            at = datetime.fromisoformat(json.loads(body)["time"]).timestamp()
            latencies.append(time.time() - at)

    @app.get("/latencies")
    async def list_latencies() -> list[float]:
        return latencies

    return app


@asynccontextmanager
async def _receiver() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.events", "--receive", stdout=PIPE
    )
    try:
        line = await process.stdout.readline() if process.stdout else b""
        yield line.decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def receive() -> None:
    """Serve the receiver and print its address."""
    config = uvicorn.Config(create_receiver(), port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event
        await asyncio.sleep(0.01)
    print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    await serving


@asynccontextmanager
async def open_outbox() -> AsyncIterator[Pool]:
    """Start a database server and open a pool on a migrated database."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-events-")))
        url = await stack.enter_async_context(embedded_postgres_server(folder))
        settings = DatabaseSettings(url=SecretStr(url))
        pool = await stack.enter_async_context(open_database(settings, folder))
        await migrate_memory(pool)
        await migrate_rooms(pool)
        yield pool


async def main(seconds: float) -> None:
    """Measure both ways out."""
    configure_logging(LogSettings(level="error"))
    async with open_outbox() as pool:
        await measure_webhooks(pool, seconds)
        await measure_broker(pool, seconds)


def parse_arguments() -> Any:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure how events leave the outbox.")
    parser.add_argument("--seconds", type=float, default=20, help="how long events come at a rate")
    parser.add_argument("--receive", action="store_true", help="serve the receiver (used by the benchmark)")
    return parser.parse_args()


if __name__ == "__main__":
    given = parse_arguments()
    uvloop.run(receive() if given.receive else main(given.seconds))
