"""``/threads/{thread_id}/runs/stream`` and its siblings: runs as streams of server-sent events."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette import EventSourceResponse

from core.errors import InvalidRequest, ServiceError
from core.logging import get_logger
from service.agent_server.run_body import ApiStreamMode, RunBody
from service.agent_server.run_events import ApiEvents
from service.lifespan import Service
from service.routes import sse
from service.routes.agent_server.http import AgentServerRoute, RunId, ThreadId
from service.routes.agent_server.stateless_runs import build_stateless_run
from service.routes.dependencies import OpenService, Requester, answer_until_disconnect
from service.runs.log.run_log import find_attempt_start
from service.runs.request import RunRequest

log = get_logger(__name__)

HEARTBEAT_SECONDS: Final = 5
# As many digits as Postgres has room for; -1 stands for "from the first event on".
_EVENT_ID: Final = re.compile(r"-1|[0-9]{1,18}")
_FROM_FIRST: Final = -1
_STREAM: Final[dict[int | str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
}

LastEventId = Annotated[str, Header(description="Go on after this event; -1: from the first one")]
# What the clients of a thread's stream choose from.
JoinMode = Literal["run_modes", "lifecycle", "state_update"]

# Cancellations that a client has left behind; the event loop alone would not keep their tasks.
_cancelling: set[asyncio.Task[None]] = set()


def streams_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(tags=["runs"], route_class=AgentServerRoute)

    @router.post("/threads/{thread_id}/runs/stream", responses=_STREAM)
    async def stream_run(
        thread_id: ThreadId, body: RunBody, request: Request, service: OpenService, requester: Requester
    ) -> Response:
        """Execute a run and stream its events, from `metadata` to `end`; if it failed, with `error`."""
        run = await service.run_builder.build(requester, body, thread_id=str(thread_id))
        return await answer_until_disconnect(request, _begin(service, run, body))

    @router.post("/runs/stream", responses=_STREAM)
    async def stream_stateless_run(
        body: RunBody, request: Request, service: OpenService, requester: Requester
    ) -> Response:
        """Execute a run on a thread of its own and stream its events."""
        run = await build_stateless_run(service, requester, body)
        return await answer_until_disconnect(request, _begin(service, run, body))

    @router.get("/threads/{thread_id}/runs/{run_id}/stream", responses=_STREAM)
    async def join_run_stream(
        thread_id: ThreadId,
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        *,
        stream_mode: Annotated[list[ApiStreamMode] | None, Query()] = None,
        cancel_on_disconnect: bool = False,
        last_event_id: LastEventId = "",
    ) -> Response:
        """Follow a run on whichever replica it is: events from now on, or after the given one.

        Events are there until two minutes after the run's end.
        """
        after = parse_event_id(last_event_id)
        row = await service.run_store.get(str(run_id))
        if row is None or row.tenant != requester.tenant or row.thread_id != str(thread_id):
            return _respond(_say_missing(run_id))
        events = _follow(service, row.id, stream_mode or (), after, cancels=cancel_on_disconnect)
        return _respond(events, row.thread_id, row.id)

    @router.get("/threads/{thread_id}/stream", responses=_STREAM)
    async def join_thread_stream(
        thread_id: ThreadId,
        service: OpenService,
        requester: Requester,
        *,
        stream_modes: Annotated[list[JoinMode] | None, Query()] = None,
        last_event_id: LastEventId = "",
    ) -> Response:
        """Follow all runs of a thread; the stream stays open. `lifecycle`: how they begin and end."""
        after = parse_event_id(last_event_id)
        modes = set(stream_modes or ["run_modes"])
        if "state_update" in modes:
            raise InvalidRequest("stream_modes: 'state_update' is not supported; use 'run_modes'")
        await service.thread_owners.get_owner(requester, str(thread_id))
        return _respond(
            _follow_thread(service, requester.tenant, str(thread_id), after, is_whole="run_modes" in modes)
        )

    return router


def parse_event_id(text: str) -> int | None:
    """Return the id of the last event that a client has; ``None``: it wants what comes from now on.

    Raises:
        InvalidRequest: It is no id of an event.
    """
    if not text:
        return None
    if not _EVENT_ID.fullmatch(text):
        raise InvalidRequest("Last-Event-ID must be the id of an event of this stream, or -1")
    return int(text)


async def _begin(service: Service, run: RunRequest, body: RunBody) -> EventSourceResponse:
    if body.after_seconds:
        await service.runs.enqueue(run, after_seconds=body.after_seconds)
    else:
        await service.runs.start(run)
    events = _follow(service, run.run_id, body.stream_mode, _FROM_FIRST, cancels=not run.options.detached)
    return _respond(events, run.thread_id, run.run_id)


def _respond(
    events: AsyncGenerator[bytes, None], thread_id: str = "", run_id: str = ""
) -> EventSourceResponse:
    path = f"/threads/{thread_id}/runs/{run_id}"
    headers = {"Content-Location": path, "Location": f"{path}/stream"} if run_id else None
    return sse.stream_response(events, ping_seconds=HEARTBEAT_SECONDS, headers=headers)


async def _follow(
    service: Service, run_id: str, modes: Sequence[str], after: int | None, *, cancels: bool
) -> AsyncGenerator[bytes, None]:
    """Yield a run's events; the run is cancelled if the client leaves and asked for that."""
    begun, after = _get_begin(after)
    events, has_ended = ApiEvents(run_id, modes, after=after), False
    try:
        async for numbered in service.followers.follow(run_id, find_attempt_start(after)):
            for event in events.convert(numbered):
                if numbered.at >= begun:
                    yield sse.format_event(event.name, event.data, id=str(event.id))
        has_ended = True
        row = await service.run_store.get(run_id)
        if error := events.error or (row.error if row else None):
            yield _format_error(error)
        yield sse.format_event("end", None)
    finally:
        if cancels and not has_ended:
            task = asyncio.create_task(_cancel(service, run_id))
            _cancelling.add(task)
            task.add_done_callback(_cancelling.discard)


async def _cancel(service: Service, run_id: str) -> None:
    row = await service.run_store.get(run_id)
    if row and not row.ended_at:
        try:
            await service.runs.cancel(row, "interrupt")
        except ServiceError as error:
            log.warning("left_run_not_cancelled", run_id=run_id, reason=error.message)


async def _follow_thread(
    service: Service, tenant: str, thread_id: str, after: int | None, *, is_whole: bool
) -> AsyncGenerator[bytes, None]:
    begun, after = _get_begin(after)
    since = max(after, begun)
    events, run_id, is_new = None, "", False
    steps = service.protocol_streams.threads.follow(
        tenant, thread_id, since, is_stopping=lambda: service.lifecycle.is_stopping
    )
    async for step in steps:
        if events is None or step.run.id != run_id:
            events, run_id, is_new = ApiEvents(step.run.id), step.run.id, False
        if step.numbered:
            converted = list(events.convert(step.numbered))
            is_new = is_new or step.numbered.at > since
            for event in converted if is_new else ():
                if is_whole or event.name == "metadata":
                    yield sse.format_event(event.name, event.data, id=str(step.numbered.at))
        elif is_new or step.row is None:
            if error := events.error or (step.row.error if step.row else None):
                yield _format_error(error)
            yield sse.format_event("end", {"run_id": run_id})


def _get_begin(after: int | None) -> tuple[int, int]:
    """Return the time from which on parts are wanted, in microseconds, and the event after which."""
    return (time.time_ns() // 1_000, 0) if after is None else (0, max(after, 0))


def _format_error(error: Any) -> bytes:
    return sse.format_event("error", {"error": error["error"], "message": error["message"]})


async def _say_missing(run_id: UUID) -> AsyncGenerator[bytes, None]:
    # Clients read the error as an event, and would repeat a request that fails.
    yield _format_error({"error": "not_found", "message": f"there is no run {str(run_id)!r} on this thread"})
