"""``POST /v1/messages``: what the CRM calls when a customer writes."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from langgraph.types import StreamMode

from core.concurrency import SlotUnavailable
from core.context import Context, set_context
from core.deadline import is_over, set_deadline
from core.errors import CrmError, InterruptPending, ModelError, NothingToResume, ServiceError, TooManyRuns
from core.logging import get_logger
from nodes.shared.citations import Citation
from service.auth.principal import Identity
from service.conversations.journeys import JourneyTurn
from service.conversations.sessions import SESSION_GRAPH
from service.errors import error_body
from service.lifespan import Service
from service.routes import sse
from service.routes.dependencies import (
    RUN_HEADER,
    THREAD_HEADER,
    OpenService,
    Requester,
    answer_until_disconnect,
)
from service.routes.message_models import MessageMetadata, MessageRequest, MessageResponse
from service.runs.inputs import build_graph_input
from service.runs.log.run_log import (
    NumberedEvents,
    NumberedPart,
    build_attempt_part,
    build_end_part,
    get_first_seq,
)
from service.runs.output import PendingInterrupt, RunResult
from service.runs.replay import claim_message_id, claim_request_key
from service.runs.request import OnStart, RunRequest, build_run_request, check_thread_id, new_thread_id

log = get_logger(__name__)

# For clients that show nothing but a text: there is none while a person decides, or writes the answer.
WAITING_TEXT: Final = "A person of the company decides on this first, at /v1/approvals."
HELD_TEXT: Final = "A person of the company has taken over this conversation and replies through the CRM."

_STREAM_MODES: Final[tuple[StreamMode, ...]] = ("messages", "custom", "updates", "values")
# What :class:`service.runs.output.RunResult` reads.
RESULT_MODES: Final[tuple[StreamMode, ...]] = ("values",)


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
                "`reflection`, `reset` (clear the tokens of `message_id`), `interrupt`, `citation` (a "
                "source of the answer), and at the end `done` or `error`.",
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
        is_streamed = "text/event-stream" in accept
        run = await prepare_message(message, service, requester, key=idempotency_key, is_streamed=is_streamed)
        answer = _stream(run, service) if is_streamed else _answer(run, service)
        response = await answer_until_disconnect(request, answer)
        response.headers[THREAD_HEADER] = run.session_id
        return response

    return router


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRun:
    """How a message is answered.

    Attributes:
        message: The message.
        identity: The caller.
        message_id: Its id; empty: it has none.
        session: The coordinator's run on the session's thread.
        turn: The message as the turn of a journey; ``None``: it belongs to none.
        journey: The journey's run.
    """

    message: MessageRequest
    identity: Identity
    message_id: str
    session: RunRequest
    turn: JourneyTurn | None
    journey: RunRequest | None

    @property
    def session_id(self) -> str:
        """The session, which is the coordinator's thread."""
        return self.session.thread_id


async def prepare_message(
    message: MessageRequest,
    service: Service,
    identity: Identity,
    *,
    key: str = "",
    is_streamed: bool = False,
    on_start: OnStart | None = None,
) -> MessageRun:
    """Find a message's session and journey; the time in which it is to be answered begins.

    Args:
        message: The message.
        service: The open service.
        identity: Who sent it.
        key: The request's ``Idempotency-Key``; empty: it has none.
        is_streamed: Whether the answer is wanted token by token.
        on_start: Returns the session run's callbacks once it is admitted.

    Raises:
        InvalidRequest: There is no agent of the name.
        TooManyRuns: Too many messages came at once.
        ServiceError: The id came with another text, the session is somebody else's, or the key is malformed.
    """
    service.agents.check_name(message.agent)
    limits = service.settings.messages
    set_context(Context(tenant=identity.tenant, user=identity.user))
    set_deadline(limits.deadline_seconds, reserve=limits.reserve_seconds)
    async with _take_turn(service, identity.tenant):
        return await _build_run(message, service, identity, key, is_streamed=is_streamed, on_start=on_start)


async def answer_message(run: MessageRun, service: Service) -> tuple[dict[str, Any], RunRequest]:
    """Return a message's answer (:class:`MessageResponse`) and the run that made it."""
    answer, request = await advance_journey(run, service), run.journey
    if answer is None or request is None:
        request = run.session
        answer = build_response(await service.runs.run_to_end(request), service)
    return answer, request


def get_text(answer: Mapping[str, Any]) -> str:
    """Return an answer's text; where it waits for a person, a sentence that says so."""
    text: str = answer["response"]
    return text or (HELD_TEXT if answer["path"] == "person" else WAITING_TEXT)


@asynccontextmanager
async def _take_turn(service: Service, tenant: str) -> AsyncIterator[None]:
    """Hold a slot for the work before a run; a tenant's thousand messages do not use up all connections.

    Raises:
        TooManyRuns: No slot came free in time.
    """
    try:
        async with service.arrivals.slot(tenant):
            yield
    except SlotUnavailable:
        raise TooManyRuns("too many messages came at once; try again in a moment", retry_after=1) from None


async def _answer(run: MessageRun, service: Service) -> Response:
    answer, request = await answer_message(run, service)
    return JSONResponse(answer, headers={RUN_HEADER: request.run_id})


async def _stream(run: MessageRun, service: Service) -> Response:
    events = await sse.wait_for_first(_list_events(run, service), _to_error_event)
    return sse.stream_response(events, _to_error_event, thread_id=run.session_id, run_id=run.session.run_id)


async def _list_events(run: MessageRun, service: Service) -> AsyncGenerator[bytes, None]:
    start = {"session_id": run.session_id, "run_id": run.session.run_id, "metadata": asdict(service.model)}
    if run.journey and (answer := await advance_journey(run, service)):
        # A journey's texts are put together from several replies, so its answer comes whole.
        yield sse.format_event("start", {**start, "run_id": run.journey.run_id})
        for dispatch in answer["dispatched"]:
            yield sse.format_event("agent", dispatch)
        if answer["response"]:
            token = {"node": answer["agent_used"], "message_id": run.message_id, "text": answer["response"]}
            yield sse.format_event("token", token)
        for citation in _list_citations(answer):
            yield sse.format_event("citation", citation)
        for pending in answer["interrupts"]:
            yield sse.format_event("interrupt", pending)
        yield sse.format_event("done", answer)
        return
    # The numbers that whoever follows the run reads, so that this stream continues at /v1/runs/{id}/stream.
    events, result, seqs = NumberedEvents(), RunResult(), count(get_first_seq(attempt=1))
    async with service.runs.stream(run.session) as parts:
        [first] = events.convert(NumberedPart(next(seqs), build_attempt_part(1)))
        yield sse.format_event("start", start, id=str(first.id))
        async for part in parts:
            result.take(part)
            for event in events.convert(NumberedPart(next(seqs), part)):
                yield sse.format_event(event.name, event.data, id=str(event.id))
    response = build_response(result, service)
    for event in events.convert(NumberedPart(next(seqs), build_end_part(response["response"]))):
        yield sse.format_event(event.name, event.data, id=str(event.id))
    for citation in _list_citations(response):
        yield sse.format_event("citation", citation)
    yield sse.format_event("done", response)


def _list_citations(answer: Mapping[str, Any]) -> list[Citation]:
    """Return what an answer rests on; nothing while a person decides on it."""
    citations: list[Citation] = answer["metadata"]["citations"] if answer["response"] else []
    return citations


def _to_error_event(error: ServiceError) -> bytes:
    return sse.format_event("error", {**error_body(error), "status": error.status})


async def advance_journey(run: MessageRun, service: Service) -> dict[str, Any] | None:
    """Give the message to its journey, and return the response.

    Returns:
        ``None``: it belongs to no journey, the journey has gone on meanwhile, or it had nothing to say; the
        coordinator answers then.
    """
    if run.turn is None or run.journey is None:
        return None
    try:
        result = await service.runs.run_to_end(run.journey)
    except (NothingToResume, InterruptPending) as error:
        log.info("journey_not_continued", thread_id=run.journey.thread_id, reason=error.message)
        return None
    except (ModelError, CrmError) as error:
        if not is_over():
            raise
        # The coordinator hands the message over.
        log.warning("journey_out_of_time", thread_id=run.journey.thread_id, reason=error.message)
        return None
    values = await service.journeys.build_answer(
        run.turn, result.values, identity=run.identity, session_id=run.session_id, message_id=run.message_id
    )
    interrupts = result.interrupts if run.turn.spec.asks == "company" else []
    return (
        build_response(result, service, {**values, "interrupts": interrupts})
        if interrupts or values["response"]
        else None
    )


def build_response(
    result: RunResult, service: Service, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the response to a message.

    Args:
        result: The run's result.
        service: The open service.
        values: The answer in the coordinator's form, of a run of another graph.
    """
    answer = {"journey": None, "interrupts": result.interrupts, **(values or result.values)}
    fields = MessageResponse.model_fields.keys() & answer.keys() - {"metadata", "interrupts"}
    return MessageResponse(
        **{name: answer[name] for name in fields},
        reason_incomplete=answer["reason"],
        interrupts=[PendingInterrupt(**pending) for pending in answer["interrupts"]],
        metadata=MessageMetadata(
            **asdict(service.model),
            **{name: answer[name] for name in ("memory", "context", "citations", "unsupported")},
        ),
    ).model_dump()


async def _build_run(
    message: MessageRequest,
    service: Service,
    identity: Identity,
    key: str,
    *,
    is_streamed: bool,
    on_start: OnStart | None,
) -> MessageRun:
    new_id, message_id = new_thread_id(), await _claim_message(message, service, identity, key)
    session = await service.session_runs.enter(
        identity,
        message.contact_id,
        channel_id=message.channel_id or "",
        session_id=check_thread_id(message.session_id) if message.session_id else "",
        message_id=message_id,
        new_id=new_id,
    )
    # No journey goes on where a person has taken over, nor in the place of an agent that is named.
    turn = (
        None
        if session.is_held or message.agent
        else await service.journeys.choose(
            identity,
            message.contact_id,
            message.message,
            session=session,
            message_id=message_id,
        )
    )
    values = {
        "message": message.message,
        "contact_id": message.contact_id,
        "channel_id": message.channel_id or "",
        "session_id": session.session_id,
        "message_id": message_id,
        "agent": message.agent,
        "history": message.history,
        "metadata": message.metadata or {},
    }
    common: dict[str, Any] = {
        "identity": identity,
        "metadata": {"channel_id": message.channel_id, **(message.metadata or {})},
        "key": message_id,
        "repeated": session.repeated,
        "multitask_strategy": message.multitask_strategy,
    }
    return MessageRun(
        message=message,
        identity=identity,
        message_id=message_id,
        session=build_run_request(
            service.graphs[SESSION_GRAPH.name],
            SESSION_GRAPH,
            build_graph_input(SESSION_GRAPH, values),
            thread_id=session.session_id,
            # On a channel, another message may have continued the session already.
            fresh=session.session_id == new_id and not message.channel_id,
            on_start=on_start,
            on_finish=service.session_runs.close_on_finish(SESSION_GRAPH, identity, session.session_id),
            # A whole answer needs no tokens, and LangGraph then makes none.
            modes=_STREAM_MODES if is_streamed else RESULT_MODES,
            # The agents' steps and tokens are those of subgraphs.
            subgraphs=is_streamed,
            **common,
        ),
        turn=turn,
        journey=build_run_request(
            service.graphs[turn.spec.name],
            turn.spec,
            turn.input,
            thread_id=turn.journey.thread_id,
            fresh=False,
            modes=RESULT_MODES,
            **common,
        )
        if turn
        else None,
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
