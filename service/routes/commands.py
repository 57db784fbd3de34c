"""Commands that come over the broker: a customer's message takes the same path as in ``POST /v1/messages``.

The answer goes out as the event ``message.answered``.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from pydantic import ValidationError

from core.context import Context, set_context
from core.deadline import set_deadline
from core.errors import ServiceError
from core.logging import get_logger
from service.auth.principal import Identity
from service.broker import CommandRefused, MessageCommand, consume_commands
from service.errors import to_service_error
from service.lifespan import Service
from service.routes.message_models import MessageRequest
from service.routes.messages import advance_journey, build_message_run, take_turn

log = get_logger(__name__)

# How the audit trail names who sent commands.
USER = "broker"


@asynccontextmanager
async def answer_commands(service: Service) -> AsyncIterator[None]:
    """Answer commands while the context is open, if a broker is set up."""

    async def handle(command: MessageCommand, accept: Callable[[], Awaitable[None]]) -> None:
        try:
            message = MessageRequest.model_validate(command.to_request())
        except ValidationError as error:
            raise CommandRefused("validation_error", describe_faults(error)) from error
        identity = Identity(command.tenant, USER, frozenset({"runs"}), credential=USER)
        await answer_message(service, identity, message, accept)

    async def drain() -> None:
        await service.runs.drain()

    settings = service.settings.amqp
    async with consume_commands(service.tasks, settings, handle, service.metrics, drain=drain):
        yield


def describe_faults(error: ValidationError) -> str:
    """Return what is wrong with a message, without its words."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)


async def answer_message(
    service: Service, identity: Identity, message: MessageRequest, accept: Callable[[], Awaitable[None]]
) -> None:
    """Answer a message that nobody waits for.

    Args:
        service: The open service.
        identity: Who sent it.
        message: The message.
        accept: Called when the message need not come again: its run is a row that any replica can execute, or
            a journey has answered it.

    Raises:
        CommandRefused: It cannot be answered, however often it is tried.
        ServiceError: It cannot be answered at the moment, and was not accepted.
    """
    is_accepted = False

    async def accept_once() -> None:
        nonlocal is_accepted
        is_accepted = True
        await accept()

    try:
        await _answer(service, identity, message, accept_once)
    except Exception as error:
        described = to_service_error(error)
        if is_accepted:
            # Its row says how it ended, and an event.
            log.info("message_not_answered", error=described.code, reason=described.message)
            return
        if is_lasting(described):
            raise CommandRefused(described.code, described.message) from error
        raise described from error


async def _answer(
    service: Service, identity: Identity, message: MessageRequest, accept: Callable[[], Awaitable[None]]
) -> None:
    limits = service.settings.messages
    set_context(Context(tenant=identity.tenant, user=identity.user))
    set_deadline(limits.deadline_seconds, reserve=limits.reserve_seconds)
    async with take_turn(service, identity.tenant):
        run = await build_message_run(message, service, identity)
    # A journey that has nothing to say leaves the message to the coordinator, which a crash must not prevent.
    if await advance_journey(run, service):
        await accept()
        return
    async with service.runs.stream(run.session) as parts:
        await accept()
        async for _ in parts:
            pass


def is_lasting(error: ServiceError) -> bool:
    """Return whether an error would come again: it names no time to try again, and nothing is down."""
    is_outage = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and type(error) is not ServiceError
    return error.retry_after is None and not is_outage and error.status != HTTPStatus.TOO_MANY_REQUESTS
