"""A connection to the broker: opened with a time limit, and never by itself again.

aio-pika has connections that reconnect by themselves. Ours do not: the tasks that use them reconnect with
pauses that grow, and show that in their status, like every other task that waits for something outside.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aio_pika.exceptions import AMQPException, ChannelInvalidStateError, ChannelNotFoundEntity

from core.postgres import DATABASE_UNAVAILABLE
from core.settings import AmqpSettings
from core.tasks import Backoff

# Exceptions that mean that the broker cannot be reached, or refuses what it is asked for.
BROKER_FAULTS: Final = (AMQPException, ChannelInvalidStateError, OSError, TimeoutError)
UNAVAILABLE: Final = (*BROKER_FAULTS, *DATABASE_UNAVAILABLE)
BACKOFF: Final = Backoff(first=1, longest=30)
# Time limit of one step: to connect, to declare, to have a message confirmed.
STEP_SECONDS: Final = 10.0


@asynccontextmanager
async def open_connection(settings: AmqpSettings, name: str) -> AsyncIterator[AbstractConnection]:
    """Connect to the broker.

    Args:
        settings: The address; it is set.
        name: Of the connection, as the broker's operator sees it.

    Raises:
        AMQPException, OSError, TimeoutError: The broker cannot be reached, or refuses.
    """
    url = settings.url.get_secret_value() if settings.url else ""
    connection = await aio_pika.connect(
        url, timeout=STEP_SECONDS, client_properties={"connection_name": f"ventros-agents {name}"}
    )
    try:
        yield connection
    finally:
        await connection.close()


def watch_channel(channel: AbstractChannel) -> asyncio.Event:
    """Return an event that is set when a channel is closed, for whatever reason.

    The channel's state is what to trust: a connection that breaks closes its channels, and does not always
    count as closed itself.
    """
    closed = asyncio.Event()

    def note(*_: object) -> None:
        closed.set()

    channel.close_callbacks.add(note, weak=False)
    if channel.is_closed:
        closed.set()
    return closed


async def declare_queue(connection: AbstractConnection, name: str) -> None:
    """Make a durable queue, unless there is one: an operator may have made it with arguments of their own."""
    try:
        async with connection.channel() as channel:
            await channel.declare_queue(name, passive=True, timeout=STEP_SECONDS)
    except ChannelNotFoundEntity:
        async with connection.channel() as channel:
            await channel.declare_queue(name, durable=True, timeout=STEP_SECONDS)


async def get_queue(channel: AbstractChannel, name: str) -> AbstractQueue:
    """Return a queue that exists."""
    return await channel.declare_queue(name, passive=True, timeout=STEP_SECONDS)


async def declare_exchange(connection: AbstractConnection, name: str) -> None:
    """Make a durable topic exchange, unless there is one."""
    try:
        async with connection.channel() as channel:
            await channel.declare_exchange(name, "topic", passive=True, timeout=STEP_SECONDS)
    except ChannelNotFoundEntity:
        async with connection.channel() as channel:
            await channel.declare_exchange(name, "topic", durable=True, timeout=STEP_SECONDS)


async def get_exchange(channel: AbstractChannel, name: str) -> AbstractExchange:
    """Return an exchange that exists."""
    return await channel.get_exchange(name, ensure=False)
