"""``POST /v1/messages``: what the CRM calls when a customer writes."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, JsonValue, model_validator
from sse_starlette import ServerSentEvent

from api import sse
from api.admission import MultitaskStrategy
from api.dependencies import OpenService
from api.disconnect import until_gone
from api.errors import body, describe
from api.identity import LOCAL
from api.message_events import MessageEvents
from api.run_output import PendingInterrupt, RunMetadata, RunResult, finished
from api.run_requests import run_request
from api.runs import RunRequest
from api.service import Service
from api.texts import require_storable
from graphs.registry import REGISTRY
from nodes.coordinator.state import Alternative, Attempt, Dispatched, Handoff, Path

# Which graph answers.
GRAPH = REGISTRY["coordinator"]


class MessageRequest(BaseModel):
    """A message of a customer."""

    _storable = model_validator(mode="before")(require_storable)

    contact_id: str = Field(min_length=1, max_length=200, description="Who wrote")
    message: str = Field(min_length=1, max_length=20_000, description="What they wrote")
    channel_id: str | None = Field(None, max_length=200, description="Where they wrote")
    session_id: str | None = Field(
        None, description="Session to go on with; none: a new one. A session is a thread"
    )
    metadata: dict[str, JsonValue] | None = Field(None, description="Kept with the run's checkpoints")
    multitask_strategy: MultitaskStrategy = Field(
        "enqueue", description="When the session is busy: wait, answer 409, or stop the other run"
    )


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
    path: Path = Field(
        description="agent: its answer; merged: two agents'; clarification: the customer was asked back; "
        "general: the general agent's, as no other answered; handoff: a person takes over"
    )
    dispatched: list[Dispatched] = Field(description="Who was given the message, and why they")
    attempts: list[Attempt] = Field(description="Every agent that tried, and what came of it")
    interrupts: list[PendingInterrupt] = Field(
        description="Questions a person must decide before the answer; see /v1/approvals"
    )
    reason_incomplete: str | None = Field(description="Why success is false; null otherwise")
    metadata: RunMetadata = Field(description="Which model answered, and why it")


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
        accept: Annotated[str, Header()] = "application/json",
    ) -> Response:
        """Answer a customer's message, whole or as a stream."""
        run = _run(message, service)
        headers = {"X-Thread-Id": run.thread_id}
        if "text/event-stream" in accept:
            answer: Response = sse.stream(_events(run, service))
        else:
            answer = await until_gone(request, _whole(run, service))
        answer.headers.update(headers)
        return answer

    return router


def _run(message: MessageRequest, service: Service) -> RunRequest:
    return run_request(
        service,
        GRAPH,
        {
            "message": message.message,
            "contact_id": message.contact_id,
            "channel_id": message.channel_id or "",
            "session_id": message.session_id or "",
            "metadata": message.metadata or {},
        },
        identity=LOCAL,
        thread_id=message.session_id,
        metadata={"channel_id": message.channel_id, **(message.metadata or {})},
        modes=("messages", "updates", "values"),
        # The agents' steps and tokens are those of graphs inside.
        subgraphs=True,
        multitask_strategy=message.multitask_strategy,
    )


async def _whole(run: RunRequest, service: Service) -> Response:
    result = await finished(service.runs, run)
    return JSONResponse(_response(result, service).model_dump())


async def _events(run: RunRequest, service: Service) -> AsyncIterator[ServerSentEvent]:
    events = MessageEvents()
    result = RunResult()
    parts = service.runs.stream(run)
    yield sse.event("start", {"session_id": run.thread_id, "metadata": asdict(service.model)})
    try:
        async for part in parts:
            result.take(part)
            for one in events.of(part):
                yield one
        yield sse.event("done", _response(result, service).model_dump())
    except Exception as error:  # noqa: BLE001 - the stream has begun: its last event is where errors go
        described = describe(error)
        yield sse.event("error", {**body(described), "status": described.status})
    finally:
        await parts.aclose()


def _response(result: RunResult, service: Service) -> MessageResponse:
    values = result.values
    return MessageResponse(
        **{name: values[name] for name in MessageResponse.model_fields.keys() & values.keys() - {"metadata"}},
        reason_incomplete=values["reason"],
        interrupts=[PendingInterrupt(**pending) for pending in result.interrupts],
        metadata=RunMetadata(**asdict(service.model)),
    )
