"""Open what uses the broker, where one is set up.

The client takes a fifth of a second to import, which a service without a broker need not wait for.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from core.postgres import Pool
from core.settings import AmqpSettings
from core.tasks import Supervisor
from service.broker.messages import BrokerMeter, Handle


@asynccontextmanager
async def publish_events(
    tasks: Supervisor, pool: Pool, settings: AmqpSettings, meter: BrokerMeter
) -> AsyncIterator[None]:
    """Publish events while the context is open, if a broker is set up."""
    if settings.url is None:
        yield
        return
    from service.broker.publisher import EventPublisher  # noqa: PLC0415

    publisher = EventPublisher(pool, settings, meter)
    # Before anything is served that could make an event true.
    await publisher.expect_events()
    async with tasks.supervise("event-publisher", publisher.run):
        yield


@asynccontextmanager
async def consume_commands(
    tasks: Supervisor,
    settings: AmqpSettings,
    handle: Handle,
    meter: BrokerMeter,
    *,
    drain: Callable[[], Awaitable[None]],
) -> AsyncIterator[None]:
    """Consume commands while the context is open, if a broker and a queue are set up.

    Args:
        tasks: Supervises the consumer.
        settings: The broker and the queue.
        handle: Handles a command.
        meter: Counts commands.
        drain: Has the runs of accepted commands end, or be left to another replica.
    """
    if settings.url is None or not settings.commands_queue:
        yield
        return
    from service.broker.commands import CommandConsumer  # noqa: PLC0415

    consumer = CommandConsumer(settings, handle, meter)
    async with tasks.supervise("commands", consumer.run):
        try:
            yield
        finally:
            await consumer.close(drain)
