"""Publish events to the broker: those that it has not confirmed, each thread's in its order.

One process of the deployment publishes at a time. An event counts as published when the broker has confirmed
it; one that is published and not recorded, because the process died in between, is published again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import orjson
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange
from aio_pika.exceptions import DeliveryError
from psycopg.rows import DictRow

from core.logging import get_logger
from core.postgres import Pool
from core.settings import AmqpSettings
from core.tasks import periodic
from service.broker.connection import (
    BACKOFF,
    BROKER_FAULTS,
    STEP_SECONDS,
    UNAVAILABLE,
    declare_exchange,
    get_exchange,
    open_connection,
)
from service.broker.messages import BrokerMeter
from service.outbox.catalogue import CONTENT_TYPE, build_envelope

log = get_logger(__name__)

# How soon an event is published.
POLL_SECONDS: Final = 0.2
# Events of one transaction.
BATCH: Final = 500
# Events are written for the broker until this many days after the last process that publishes was there.
_KEEP_DAYS: Final = 7
_EXPECT_SECONDS: Final = 600.0

EXPECT_SQL: Final = """
INSERT INTO outbox.brokers AS known (name, expires_at) VALUES (%(name)s, now() + %(days)s * interval '1 day')
ON CONFLICT (name) DO UPDATE SET expires_at = greatest(known.expires_at, excluded.expires_at)
"""
# Held until the transaction ends, also behind a pooler.
TRY_LOCK_SQL: Final = (
    "SELECT pg_try_advisory_xact_lock(hashtextextended('publisher of events', 0)) AS is_held"
)
FIND_SQL: Final = "SELECT * FROM outbox.events WHERE is_unpublished ORDER BY position LIMIT %s"
MARK_SQL: Final = "UPDATE outbox.events SET is_unpublished = false WHERE position = ANY (%s)"


class EventPublisher:
    """Publishes events.

    Args:
        pool: The service's pool.
        settings: The broker and the exchange.
        meter: Counts events.
    """

    def __init__(self, pool: Pool, settings: AmqpSettings, meter: BrokerMeter) -> None:
        self._pool = pool
        self._settings = settings
        self._meter = meter
        self._connected = AsyncExitStack()
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None
        self._expected_at = float("-inf")

    async def run(self) -> None:
        """Publish until cancelled; a broker that is away is tried again, with pauses that grow."""
        try:
            await periodic(
                "event-publisher",
                self.publish_all,
                seconds=POLL_SECONDS,
                at_once=True,
                backoff=BACKOFF,
                unavailable=UNAVAILABLE,
            )
        finally:
            await self._disconnect()

    async def publish_all(self) -> int:
        """Publish what has not been confirmed, and return how many events were.

        Raises:
            AMQPException, OSError, TimeoutError: The broker is away; what it confirmed is recorded.
        """
        await self.expect_events()
        total = 0
        try:
            exchange = await self._connect()
            while published := await self._publish_batch(exchange):
                total += published
        except BROKER_FAULTS:
            await self._disconnect()
            raise
        return total

    async def expect_events(self) -> None:
        """Have events written for the broker, also while it is away."""
        now = asyncio.get_running_loop().time()
        if now - self._expected_at > _EXPECT_SECONDS:
            async with self._pool.connection() as connection:
                values = {"name": self._settings.events_exchange, "days": _KEEP_DAYS}
                await connection.execute(EXPECT_SQL, values)
            self._expected_at = now

    async def _connect(self) -> AbstractExchange:
        if self._exchange is None or self._channel is None or self._channel.is_closed:
            await self._disconnect()
            async with asyncio.timeout(2 * STEP_SECONDS):
                opened = open_connection(self._settings, "events")
                connection = await self._connected.enter_async_context(opened)
                await declare_exchange(connection, self._settings.events_exchange)
                self._channel = await connection.channel(publisher_confirms=True)
                self._exchange = await get_exchange(self._channel, self._settings.events_exchange)
        return self._exchange

    async def _disconnect(self) -> None:
        connected, self._connected = self._connected, AsyncExitStack()
        self._channel = self._exchange = None
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await connected.aclose()
        except BROKER_FAULTS as error:
            log.info("broker_not_closed", reason=type(error).__name__)

    async def _publish_batch(self, exchange: AbstractExchange) -> int:
        """Publish a batch; return how many were confirmed, 0 also where another process publishes."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(TRY_LOCK_SQL)).fetchone()
            if not (row and row["is_held"]):
                return 0
            rows = await (await connection.execute(FIND_SQL, (BATCH,))).fetchall()
            confirmed, fault = await _publish(exchange, rows)
            if confirmed:
                await connection.execute(MARK_SQL, (confirmed,))
        self._meter.record_broker("published", len(confirmed))
        if fault:
            raise fault
        return len(confirmed)


async def _publish(
    exchange: AbstractExchange, rows: Sequence[DictRow]
) -> tuple[list[int], BaseException | None]:
    """Publish events in waves, each with one event of a thread, so that none overtakes an earlier one.

    Returns:
        The positions of those that were confirmed, and what went wrong with another one.
    """
    confirmed: list[int] = []
    fault: BaseException | None = None
    refused: set[tuple[str, str]] = set()
    for wave in _split_into_waves(rows):
        events = [row for row in wave if _key(row) not in refused]
        results = await asyncio.gather(
            *(_publish_one(exchange, row) for row in events), return_exceptions=True
        )
        for row, result in zip(events, results, strict=True):
            if result is None:
                confirmed.append(row["position"])
            else:
                refused.add(_key(row))
                # The broker refuses a single event; anything else means that the connection is gone.
                fault = fault if isinstance(result, DeliveryError) and fault else result
        if fault and not isinstance(fault, DeliveryError):
            break
    return confirmed, fault


def _key(row: DictRow) -> tuple[str, str]:
    return row["tenant"], row["thread_id"]


def _split_into_waves(rows: Sequence[DictRow]) -> list[list[DictRow]]:
    waves: list[list[DictRow]] = []
    depths: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        depth = depths[_key(row)]
        if row["thread_id"]:
            depths[_key(row)] += 1
        if depth == len(waves):
            waves.append([])
        waves[depth].append(row)
    return waves


async def _publish_one(exchange: AbstractExchange, row: DictRow) -> None:
    message = Message(
        orjson.dumps(build_envelope(row)),
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=str(row["id"]),
        type=row["type"],
        timestamp=row["at"],
    )
    # Not mandatory: an event that no queue is bound for is nobody's.
    await exchange.publish(message, f"{row['tenant']}.{row['type']}", mandatory=False, timeout=STEP_SECONDS)
