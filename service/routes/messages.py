"""``POST /v1/messages``: what the CRM calls when a customer writes."""

from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from sse_starlette import ServerSentEvent

from core.errors import ServiceError
from core.packing import ContextRecord
from nodes.coordinator.state import Alternative, AnswerPath, Attempt, Dispatch, Handoff
from nodes.shared.memory import MemoryUse
from service.auth.principal import Identity
from service.errors import error_body
from service.lifespan import Service
from service.routes import sse
from service.routes.dependencies import OpenService, Requester, answer_until_disconnect
from service.runs.output import PendingInterrupt, RunEvents, RunMetadata, RunResult
from service.runs.replay import claim_message_id, claim_request_key
from service.runs.request import (
    MultitaskStrategy,
    RunRequest,
    build_graph_input,
    build_run_request,
    check_thread_id,
    new_thread_id,
    require_storable,
)
from service.runs.sessions import SESSION_GRAPH


class MessageRequest(BaseModel):
    """A message of a customer."""

    model_config = ConfigDict(extra="forbid")

    _storable = model_validator(mode="before")(require_storable)

    contact_id: str = Field(min_length=1, max_length=200, description="Who wrote")
    message: str = Field(min_length=1, max_length=20_000, description="What they wrote")
    channel_id: str | None = Field(None, max_length=200, description="Where they wrote")
    session_id: str | None = Field(
        None,
        description="Session to continue; none: the contact's current one on the channel, if one is named, "
        "else a new one. A session is a thread",
    )
    message_id: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="The message's id where it comes from, so that one that is sent twice is answered once",
    )
    metadata: dict[str, JsonValue] | None = Field(
        None, max_length=100, description="Stored with the run's checkpoints"
    )
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
    dispatched: list[Dispatch] = Field(description="Which agents were given the message, and why")
    attempts: list[Attempt] = Field(description="Every agent that tried, and its outcome")
    ends_session: bool = Field(description="Whether the conversation came to its end, and is closed")
    interrupts: list[PendingInterrupt] = Field(
        description="Questions a person must decide before the answer; see /v1/approvals"
    )
    reason_incomplete: str | None = Field(description="Why success is false; null otherwise")
    metadata: MessageMetadata = Field(description="How the answer was made")


def messages_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1", tags=["messages"])

    @router.post(
        "/messages",
        response_model=MessageResponse,
        responses={
            200: {
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
                "description": "The answer; with `Accept: text/event-stream` as events `start`, `agent`, "
                "`token` (text of the answer), `thought` (reasoning, not for the customer), `observation`, "
                "`reflection`, `reset` (clear the tokens of `message_id`), `interrupt`, and at the end "
                "`done` or `error`.",
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
            str, Header(description="A request sent again with its key is answered once; see `message_id`")
        ] = "",
    ) -> Response:
        """Answer a customer's message, whole or as a stream."""
        run = await _build_run(message, service, requester, idempotency_key)
        answer = _stream(run, service) if "text/event-stream" in accept else _answer(run, service)
        response = await answer_until_disconnect(request, answer)
        response.headers["X-Thread-Id"] = run.thread_id
        return response

    return router


async def _answer(run: RunRequest, service: Service) -> Response:
    result = await service.runs.run_to_end(run)
    return JSONResponse(_build_response(result, service).model_dump())


async def _stream(run: RunRequest, service: Service) -> Response:
    return sse.stream_response(await sse.wait_for_first(_list_events(run, service), _to_error_event))


async def _list_events(run: RunRequest, service: Service) -> AsyncGenerator[ServerSentEvent, None]:
    events, result = RunEvents(), RunResult()
    async with service.runs.stream(run) as parts:
        start = {"session_id": run.thread_id, "metadata": asdict(service.model)}
        yield sse.format_event("start", start)
        async for part in parts:
            result.take(part)
            for name, data in events.convert(part):
                yield sse.format_event(name, data)
    response = _build_response(result, service)
    for name, data in events.finish(response.response):
        yield sse.format_event(name, data)
    yield sse.format_event("done", response.model_dump())


def _to_error_event(error: ServiceError) -> ServerSentEvent:
    return sse.format_event("error", {**error_body(error), "status": error.status})


def _build_response(result: RunResult, service: Service) -> MessageResponse:
    values = result.values
    return MessageResponse(
        **{name: values[name] for name in MessageResponse.model_fields.keys() & values.keys() - {"metadata"}},
        reason_incomplete=values["reason"],
        interrupts=[PendingInterrupt(**pending) for pending in result.interrupts],
        metadata=MessageMetadata(**asdict(service.model), memory=values["memory"], context=values["context"]),
    )


async def _build_run(message: MessageRequest, service: Service, identity: Identity, key: str) -> RunRequest:
    new_id, message_id = new_thread_id(), await _claim_message(message, service, identity, key)
    session = await service.session_runs.enter(
        identity,
        message.contact_id,
        channel_id=message.channel_id or "",
        session_id=check_thread_id(message.session_id) if message.session_id else "",
        message_id=message_id,
        new_id=new_id,
    )
    values = {
        "message": message.message,
        "contact_id": message.contact_id,
        "channel_id": message.channel_id or "",
        "session_id": session.session_id,
        "message_id": message_id,
        "metadata": message.metadata or {},
    }
    return build_run_request(
        service.graphs[SESSION_GRAPH.name],
        SESSION_GRAPH,
        build_graph_input(SESSION_GRAPH, values),
        identity=identity,
        thread_id=session.session_id,
        fresh=session.session_id == new_id,
        metadata={"channel_id": message.channel_id, **(message.metadata or {})},
        on_finish=service.session_runs.close_on_finish(SESSION_GRAPH, identity, session.session_id),
        key=message_id,
        repeated=session.repeated,
        modes=("messages", "custom", "updates", "values"),
        # The agents' steps and tokens are those of subgraphs.
        subgraphs=True,
        multitask_strategy=message.multitask_strategy,
    )


async def _claim_message(message: MessageRequest, service: Service, identity: Identity, key: str) -> str:
    """Return the id that recognises a repeated message: its sender's, or one made for its key."""
    message_id = message.message_id or ""
    if message_id:
        await claim_message_id(
            service.requests,
            identity,
            contact_id=message.contact_id,
            message_id=message_id,
            text=message.message,
        )
    if not key:
        return message_id
    content = message.model_dump(mode="json", exclude={"multitask_strategy"})
    claimed = await claim_request_key(
        service.requests, identity, key, {"graph": SESSION_GRAPH.name, "message": content}
    )
    return message_id or f"request:{claimed.id}"
