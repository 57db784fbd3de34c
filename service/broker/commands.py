"""Consume commands of the CRM: a customer's message, to be answered like one of ``POST /v1/messages``.

A command is acknowledged when its handler has accepted it: when the run is a row that another replica can
execute. Until then the broker keeps it, and delivers it again when this process or the connection dies; its
message id has it answered once. What cannot be used goes to the queue of dead commands, with the reason.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage
from pydantic import ValidationError

from core.errors import ServiceError
from core.logging import get_logger
from core.settings import AmqpSettings
from core.tasks import JITTER, current_status
from service.broker.connection import (
    BACKOFF,
    BROKER_FAULTS,
    STEP_SECONDS,
    declare_queue,
    get_queue,
    open_connection,
    watch_channel,
)
from service.broker.messages import BrokerMeter, CommandRefused, Handle, MessageCommand

log = get_logger(__name__)

MESSAGE_RECEIVED: Final = "message.received"
REASON_HEADER: Final = "x-reason"
ERROR_HEADER: Final = "x-error"
_DEAD: Final = ".dead"
_ANY: Final = "*"
# Before a command that could not be accepted is given back.
_RETURN_SECONDS: Final = 2.0
_MAX_REASON_CHARACTERS: Final = 1_000


class CommandConsumer:
    """Consumes commands.

    Args:
        settings: The broker, the queue, and whose commands are accepted.
        handle: Handles one.
        meter: Counts them.
    """

    def __init__(self, settings: AmqpSettings, handle: Handle, meter: BrokerMeter) -> None:
        self._settings = settings
        self._handle = handle
        self._meter = meter
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Consume until :meth:`close`, connecting again with pauses that grow."""
        status, failures = current_status(), 0
        try:
            while not self._stop.is_set():
                try:
                    async with self._consume() as closed:
                        status.state, failures = "running", 0
                        await _first(closed.wait(), self._stop.wait())
                        if not self._stop.is_set():
                            raise ConnectionError("the connection to the broker was lost")
                except BROKER_FAULTS as error:
                    if not failures:
                        log.warning("background_task_waits", task="commands", reason=type(error).__name__)
                    failures += 1
                    status.state, status.last_error = "failing", type(error).__name__
                    pause = BACKOFF.pause(failures) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
                    await _first(asyncio.sleep(pause), self._stop.wait())
        finally:
            self._stopped.set()

    async def close(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Take no more commands, and wait for those that were taken.

        Args:
            drain: Has their runs end, or be left to another replica.
        """
        self._stop.set()
        await drain()
        await self._stopped.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @asynccontextmanager
    async def _consume(self) -> AsyncIterator[asyncio.Event]:
        """Consume while the context is open; yields what is set when the connection is lost."""
        name = self._settings.commands_queue
        async with open_connection(self._settings, "commands") as connection:
            for queue_name in (name, name + _DEAD):
                await declare_queue(connection, queue_name)
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.set_qos(prefetch_count=self._settings.prefetch)
            queue = await get_queue(channel, name)

            async def begin(message: AbstractIncomingMessage) -> None:
                task = asyncio.create_task(self._take(message, channel.default_exchange))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            closed = watch_channel(channel)
            tag = await queue.consume(begin, timeout=STEP_SECONDS)
            yield closed
            if not channel.is_closed:
                await queue.cancel(tag, timeout=STEP_SECONDS)
                # They acknowledge on this connection.
                if self._tasks:
                    await asyncio.wait(self._tasks)

    async def _take(self, message: AbstractIncomingMessage, exchange: AbstractExchange) -> None:
        """Handle a message: acknowledge it, give it back, or have it join the dead ones."""
        is_accepted = False

        async def accept() -> None:
            nonlocal is_accepted
            if not is_accepted:
                is_accepted = True
                self._meter.record_broker("taken")
                try:
                    await message.ack()
                except BROKER_FAULTS as fault:
                    # It is delivered again, and answered by this one's run.
                    log.info("command_not_acknowledged", reason=type(fault).__name__)

        fault: CommandRefused | ServiceError
        try:
            await self._handle(self._parse(message), accept)
            await accept()
        except (CommandRefused, ServiceError) as error:
            fault = error
        except Exception as error:
            log.exception("command_failed", message_id=message.message_id)
            fault = CommandRefused("internal_error", f"it could not be handled: {type(error).__name__}")
        else:
            return
        if is_accepted:
            return
        try:
            if isinstance(fault, CommandRefused):
                await self._bury(message, exchange, fault)
            else:
                await self._return(message, fault)
        except BROKER_FAULTS as error:
            # The broker delivers it again.
            log.info("command_not_acknowledged", message_id=message.message_id, reason=type(error).__name__)

    def _parse(self, message: AbstractIncomingMessage) -> MessageCommand:
        if message.type not in {MESSAGE_RECEIVED, None, ""}:
            raise CommandRefused("unknown_command", f"its type must be {MESSAGE_RECEIVED}")
        try:
            command = MessageCommand.model_validate_json(message.body)
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise CommandRefused("validation_error", "; ".join(faults)) from error
        if _ANY not in self._settings.tenants and command.tenant not in self._settings.tenants:
            raise CommandRefused("unknown_tenant", "AMQP_TENANTS does not list its tenant")
        return command

    async def _return(self, message: AbstractIncomingMessage, error: ServiceError) -> None:
        """Give a command back after a pause: what it needs is not there at the moment."""
        log.info("command_returned", message_id=message.message_id, error=error.code, reason=error.message)
        pause = random.uniform(_RETURN_SECONDS / 2, _RETURN_SECONDS)  # noqa: S311 - no secret
        await _first(asyncio.sleep(pause), self._stop.wait())
        await message.nack(requeue=True)
        self._meter.record_broker("returned")

    async def _bury(
        self, message: AbstractIncomingMessage, exchange: AbstractExchange, refusal: CommandRefused
    ) -> None:
        """Move a command to the queue of dead ones; it is acknowledged when the broker has confirmed that."""
        log.warning("command_refused", message_id=message.message_id, error=refusal.code)
        headers = {
            **(message.headers or {}),
            ERROR_HEADER: refusal.code,
            REASON_HEADER: refusal.message[:_MAX_REASON_CHARACTERS],
        }
        dead = Message(
            message.body,
            headers=headers,
            content_type=message.content_type,
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=message.message_id,
            type=message.type,
        )
        await exchange.publish(dead, self._settings.commands_queue + _DEAD, timeout=STEP_SECONDS)
        await message.ack()
        self._meter.record_broker("dead")


async def _first(*awaitables: Awaitable[Any]) -> None:
    """Wait until one has ended, and cancel the others."""
    futures = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)
    for future in futures:
        if future.done() and not future.cancelled() and (error := future.exception()):
            raise error
