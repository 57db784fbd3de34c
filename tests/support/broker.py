"""A broker's exchange and queues of a test's own, and the CRM's side of them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from pydantic import SecretStr

from core.settings import AmqpSettings
from tests.support.servers import BROKER_ADDRESS, BROKER_URL, Proxy, proxy_to
from tests.support.waiting import until


@dataclass(slots=True)
class Broker:
    """A test's part of the broker.

    Attributes:
        proxy: The service's way to the broker.
        settings: What the service is given.
        channel: The CRM's channel, which is not cut.
        events: What was published, in order.
    """

    proxy: Proxy
    settings: AmqpSettings
    channel: aio_pika.abc.AbstractChannel
    events: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Take an event, as the CRM does."""
        self.events.append(json.loads(message.body))
        self.keys.append(message.routing_key or "")
        await message.ack()

    async def until_received(self, count: int, kind: str = "") -> list[dict[str, Any]]:
        """Return the events (of a type) as soon as there are so many."""
        await until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type; empty: all."""
        return [event for event in self.events if not kind or event["type"] == kind]

    async def send(self, body: Any, *, kind: str = "message.received") -> None:
        """Send a command; a body that is no text is sent as JSON."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        await self.channel.default_exchange.publish(
            aio_pika.Message(data, type=kind), self.settings.commands_queue
        )

    async def get_dead(self) -> AbstractIncomingMessage:
        """Return the next dead command."""
        queue = await self.channel.get_queue(f"{self.settings.commands_queue}.dead", ensure=False)
        while (message := await queue.get(fail=False)) is None:
            pass
        await message.ack()
        return message

    async def count_commands(self) -> int:
        """Return how many commands wait for a consumer."""
        queue = await self.channel.declare_queue(self.settings.commands_queue, passive=True)
        return queue.declaration_result.message_count or 0


@asynccontextmanager
async def broker(**settings: Any) -> AsyncIterator[Broker]:
    """Make an exchange and queues of unused names, which are deleted at the end."""
    name = f"test.{uuid4().hex}"
    host, port = BROKER_ADDRESS
    connection = await aio_pika.connect(BROKER_URL.format(host=host, port=port))
    async with connection, proxy_to(BROKER_ADDRESS) as proxy, connection.channel() as channel:
        url = BROKER_URL.format(host="127.0.0.1", port=proxy.port)
        given = AmqpSettings(
            url=SecretStr(url), events_exchange=name, commands_queue=f"{name}.commands", **settings
        )
        exchange = await channel.declare_exchange(name, "topic", durable=True)
        queues = [
            await channel.declare_queue(each, durable=True)
            for each in (f"{name}.crm", given.commands_queue, f"{given.commands_queue}.dead")
        ]
        await queues[0].bind(exchange, "#")
        made = Broker(proxy, given, channel)
        await queues[0].consume(made.take)
        try:
            yield made
        finally:
            for queue in queues:
                await queue.delete(if_unused=False, if_empty=False)
            await exchange.delete()
