"""``POST /v1/messages``: what the CRM calls when a customer writes."""

from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, JsonValue, model_validator
from sse_starlette import ServerSentEvent

from core.logging import get_logger
from core.packing import ContextRecord
from core.postgres import DATABASE_UNAVAILABLE
from nodes.coordinator.state import Alternative, AnswerPath, Attempt, Dispatch, Handoff
from nodes.shared.memory import MemoryUse
from service.auth.principal import Identity
from service.errors import body, describe
from service.lifespan import Service
from service.middleware.disconnect import until_gone
from service.routes import sse
from service.routes.dependencies import OpenService, Requester
from service.routes.message_events import MessageEvents
from service.routes.texts import require_storable
from service.runs.http_request import run_request
from service.runs.idempotency import claim, claim_message
from service.runs.output import PendingInterrupt, RunMetadata, RunResult, finished
from service.runs.preconditions import MultitaskStrategy
from service.runs.request import RunRequest
from service.runs.sessions import GRAPH, enter_session
from service.runs.thread_ids import checked_thread_id, new_thread_id

log = get_logger(__name__)


class MessageRequest(BaseModel):
    """A message of a customer."""

    _storable = model_validator(mode="before")(require_storable)

    contact_id: str = Field(min_length=1, max_length=200, description="Who wrote")
    message: str = Field(min_length=1, max_length=20_000, description="What they wrote")
    channel_id: str | None = Field(None, max_length=200, description="Where they wrote")
    session_id: str | None = Field(
        None,
        description="Session to go on with; none: the contact's current one on the channel, if one is named, "
        "else a new one. A session is a thread",
    )
    message_id: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="The message's id where it comes from, so that one that is sent twice is answered once",
    )
    metadata: dict[str, JsonValue] | None = Field(None, description="Kept with the run's checkpoints")
    multitask_strategy: MultitaskStrategy = Field(
        "enqueue", description="When the session is busy: wait, answer 409, or stop the other run"
    )


class MessageMetadata(RunMetadata):
    """Which model answered, whether memory could be used, and what each agent was told."""

    memory: MemoryUse
    context: list[ContextRecord]


class MessageResponse(BaseModel):
    """The answer."""

    success: bool = Field(description="Whether the customer was answered, or handed over as asked")
    response: str = Field(description="What to tell the customer; empty while a person must decide")
    agent_used: str = Field(description="Who answered; empty: no agent, but the coordinator itself")
    category: str = Field(description="What kind of message it was")
    confidence: float = Field(description="Calibrated probability that it was for that agent, 0 to 1")
    alternatives: list[Alternative] = Field(description="Other agents it could have been for")
    session_id: str = Field(description="Give it back with the customer's next message")
    handoff: Handoff = Field(description="Whether a person should take over")
    path: AnswerPath = Field(
        description="agent: its answer; merged: two agents'; clarification: the customer was asked back; "
        "general: the general agent's, as no other answered; handoff: a person takes over"
    )
    dispatched: list[Dispatch] = Field(description="Who was given the message, and why they")
    attempts: list[Attempt] = Field(description="Every agent that tried, and what came of it")
    ends_session: bool = Field(description="Whether the conversation came to its end, and is closed")
    interrupts: list[PendingInterrupt] = Field(
        description="Questions a person must decide before the answer; see /v1/approvals"
    )
    reason_incomplete: str | None = Field(description="Why success is false; null otherwise")
    metadata: MessageMetadata = Field(description="How the answer was made")


def messages_router() -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1", tags=["messages"])

    @router.post(
        "/messages",
        response_model=MessageResponse,
        responses={
            200: {
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
                "description": "The answer; with `Accept: text/event-stream` as events `start`, `agent`, "
                "`token`, `thought`, `observation`, `reflection`, `interrupt`, and at the end `done` or "
                "`error`.",
            }
        },
    )
    async def post_message(
        message: MessageRequest,
        request: Request,
        service: OpenService,
        requester: Requester,
        *,
        accept: Annotated[str, Header()] = "application/json",
        idempotency_key: Annotated[
            str, Header(description="What is sent again with its key is answered once; see `message_id`")
        ] = "",
    ) -> Response:
        """Answer a customer's message, whole or as a stream."""
        run = await _run(message, service, requester, idempotency_key)
        headers = {"X-Thread-Id": run.thread_id}
        if "text/event-stream" in accept:
            answer: Response = sse.stream(_events(run, service))
        else:
            answer = await until_gone(request, _whole(run, service))
        answer.headers.update(headers)
        return answer

    return router


async def _run(message: MessageRequest, service: Service, identity: Identity, key: str) -> RunRequest:
    new_id, message_id = new_thread_id(), await _message_id(message, service, identity, key)
    session = await enter_session(
        service,
        identity,
        message.contact_id,
        channel_id=message.channel_id or "",
        session_id=checked_thread_id(message.session_id) if message.session_id else "",
        message_id=message_id,
        new_id=new_id,
    )
    return run_request(
        service,
        GRAPH,
        {
            "message": message.message,
            "contact_id": message.contact_id,
            "channel_id": message.channel_id or "",
            "session_id": session.session_id,
            "message_id": message_id,
            "metadata": message.metadata or {},
        },
        identity=identity,
        thread_id=session.session_id,
        fresh=session.session_id == new_id,
        metadata={
            "channel_id": message.channel_id,
            **(message.metadata or {}),
        },
        key=message_id,
        repeated=session.repeated,
        modes=("messages", "updates", "values"),
        # The agents' steps and tokens are those of graphs inside.
        subgraphs=True,
        multitask_strategy=message.multitask_strategy,
    )


async def _message_id(message: MessageRequest, service: Service, identity: Identity, key: str) -> str:
    """The id by which the message is known when it comes again: its sender's, or one made for its key."""
    given = message.message_id or ""
    if given:
        await claim_message(
            service, identity, contact_id=message.contact_id, message_id=given, text=message.message
        )
    if not key:
        return given
    asked = message.model_dump(mode="json", exclude={"multitask_strategy"})
    claimed = await claim(service, identity, key, {"graph": GRAPH.name, "message": asked})
    return given or f"request:{claimed.id}"


async def _whole(run: RunRequest, service: Service) -> Response:
    result = await finished(service.runs, run)
    await _close_ended(result, run, service)
    return JSONResponse(_response(result, service).model_dump())


async def _events(run: RunRequest, service: Service) -> AsyncGenerator[ServerSentEvent, None]:
    events = MessageEvents()
    result = RunResult()
    parts = service.runs.stream(run)
    yield sse.event("start", {"session_id": run.thread_id, "metadata": asdict(service.model)})
    try:
        async for part in parts:
            result.take(part)
            for one in events.of(part):
                yield one
        await _close_ended(result, run, service)
        yield sse.event("done", _response(result, service).model_dump())
    except Exception as error:  # noqa: BLE001 - the stream has begun: its last event is where errors go
        described = describe(error)
        yield sse.event("error", {**body(described), "status": described.status})
    finally:
        await parts.aclose()


async def _close_ended(result: RunResult, run: RunRequest, service: Service) -> None:
    """Close the session where the agent says so. A database that is away costs nobody their answer."""
    # An old answer that is given again ended what may have begun anew since.
    if result.values.get("ends_session") and not result.interrupts and not run.repeated:
        try:
            await service.sessions.close(run.context.tenant, run.thread_id)
        except DATABASE_UNAVAILABLE as fault:
            log.warning("session_not_closed", session_id=run.thread_id, reason=str(fault))


def _response(result: RunResult, service: Service) -> MessageResponse:
    values = result.values
    return MessageResponse(
        **{name: values[name] for name in MessageResponse.model_fields.keys() & values.keys() - {"metadata"}},
        reason_incomplete=values["reason"],
        interrupts=[PendingInterrupt(**pending) for pending in result.interrupts],
        metadata=MessageMetadata(**asdict(service.model), memory=values["memory"], context=values["context"]),
    )
