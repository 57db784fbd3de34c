"""``POST /v1/gateways/whatsapp``: customers' WhatsApp messages, as the gateway WAHA sends them.

An example of an adapter: it checks the gateway's signature and turns its message into one of
``POST /v1/messages``. The answer goes out as the event ``message.answered``, whose contact is the chat.
The route is off unless WHATSAPP_HMAC_KEY is set. See https://waha.devlike.pro/docs/how-to/webhooks/.
"""

import asyncio
import hashlib
import hmac
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import InvalidRequest, NotFound, Unauthenticated
from service.auth.principal import Identity
from service.auth.rate_limits import build_refusal
from service.broker import CommandRefused
from service.lifespan import Service
from service.routes.commands import answer_message, describe_faults
from service.routes.dependencies import OpenService
from service.routes.message_models import MessageRequest

USER: Final = "whatsapp"
# Chats with one person; groups, channels and status messages end otherwise.
_PERSON: Final = ("@c.us", "@s.whatsapp.net", "@lid")


class WahaMessage(BaseModel):
    """The ``payload`` of an event ``message``; fields that are not listed are ignored."""

    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(min_length=1, max_length=200)
    sender: str = Field(alias="from", min_length=1, max_length=200, description="The chat")
    body: str | None = Field(None, max_length=20_000, description="The text; empty for media")
    is_own: bool = Field(False, alias="fromMe", description="Whether we sent it")  # noqa: FBT003


class WahaEvent(BaseModel):
    """A webhook of WAHA."""

    event: str
    session: str = Field("default", max_length=100, description="The WhatsApp account")
    payload: dict[str, Any] = Field(default_factory=dict)


class Taken(BaseModel):
    """What became of a webhook."""

    status: Literal["accepted", "ignored"] = Field(
        description="ignored: it is no text of a person, so that there is nothing to answer"
    )


def whatsapp_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/gateways", tags=["gateways"])
    # A task that nothing refers to may be collected before it has ended.
    answering: set[asyncio.Task[None]] = set()

    @router.post("/whatsapp", status_code=202)
    async def take_whatsapp_message(
        request: Request,
        service: OpenService,
        x_webhook_hmac: Annotated[str, Header(description="HMAC-SHA512 of the body, hexadecimal")] = "",
    ) -> Taken:
        """Accept a webhook of WAHA once the message's run is stored; it is answered in the background.

        404 while no key is set up, 401 without the key's signature.
        """
        body = await request.body()
        _check_signature(service, body, x_webhook_hmac)
        message = _read_message(body)
        if message is None:
            return Taken(status="ignored")
        tenant = service.settings.whatsapp.tenant
        if service.rates and (rate := await service.rates.count_request(tenant)) and not rate.allowed:
            raise build_refusal(rate)
        accepted = asyncio.Event()

        async def accept() -> None:
            accepted.set()

        identity = Identity(tenant, USER, frozenset({"runs"}), credential=USER)
        task = asyncio.create_task(answer_message(service, identity, message, accept))
        answering.add(task)
        task.add_done_callback(answering.discard)
        await _wait(task, accepted)
        return Taken(status="accepted")

    return router


def _check_signature(service: Service, body: bytes, signature: str) -> None:
    key = service.settings.whatsapp.hmac_key
    if key is None:
        raise NotFound("the WhatsApp gateway is off; WHATSAPP_HMAC_KEY turns it on")
    expected = hmac.new(key.get_secret_value().encode(), body, hashlib.sha512).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.strip().lower().encode()):
        raise Unauthenticated("X-Webhook-Hmac is not the signature of this body under WHATSAPP_HMAC_KEY")


def _read_message(body: bytes) -> MessageRequest | None:
    """Return the message of a webhook; ``None``: it is nothing that a person wrote to us.

    Raises:
        InvalidRequest: It is no webhook of WAHA, or its message is malformed.
    """
    try:
        event = WahaEvent.model_validate_json(body)
        if event.event != "message":
            return None
        payload = WahaMessage.model_validate(event.payload)
        text = (payload.body or "").strip()
        if payload.is_own or not text or not payload.sender.endswith(_PERSON):
            return None
        return MessageRequest(
            contact_id=payload.sender,
            message=text,
            message_id=payload.id,
            channel_id=f"whatsapp:{event.session}",
        )
    except ValidationError as error:
        raise InvalidRequest(f"this is no message of WAHA: {describe_faults(error)}") from error


async def _wait(task: "asyncio.Task[None]", accepted: asyncio.Event) -> None:
    """Wait until the message is accepted; raise why it was not."""
    waiting = asyncio.create_task(accepted.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done() and not accepted.is_set():
        try:
            task.result()
        except CommandRefused as refusal:
            raise InvalidRequest(refusal.message, details={"reason": refusal.code}) from refusal
