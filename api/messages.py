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

# Which graph answers.
GRAPH = REGISTRY["react"]


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

    success: bool = Field(description="Whether the customer's request was carried out")
    response: str = Field(description="What to tell the customer")
    agent_used: str = Field(description="Who answered")
    category: str = Field(description="What kind of message it was")
    confidence: float = Field(description="Of the category, 0..1; 1.0 while one agent answers everything")
    session_id: str = Field(description="Give it back with the customer's next message")
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
                "description": "The answer; with `Accept: text/event-stream` as events `start`, `token`, "
                "`thought`, `observation`, `reflection`, and at the end `done` or `error`.",
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
        {"task": message.message, "contact_id": message.contact_id},
        identity=LOCAL,
        thread_id=message.session_id,
        metadata={"channel_id": message.channel_id, **(message.metadata or {})},
        modes=("messages", "updates", "values"),
        multitask_strategy=message.multitask_strategy,
    )


async def _whole(run: RunRequest, service: Service) -> Response:
    result = await finished(service.runs, run)
    return JSONResponse(_response(result, run, service).model_dump())


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
        yield sse.event("done", _response(result, run, service).model_dump())
    except Exception as error:  # noqa: BLE001 - the stream has begun: its last event is where errors go
        described = describe(error)
        yield sse.event("error", {**body(described), "status": described.status})
    finally:
        await parts.aclose()


def _response(result: RunResult, run: RunRequest, service: Service) -> MessageResponse:
    return MessageResponse(
        success=result.values["success"],
        response=result.values["final_answer"],
        agent_used=GRAPH.name,
        category="support",
        confidence=1.0,
        session_id=run.thread_id,
        reason_incomplete=result.values["reason_incomplete"],
        interrupts=[PendingInterrupt(**pending) for pending in result.interrupts],
        metadata=RunMetadata(**asdict(service.model)),
    )
