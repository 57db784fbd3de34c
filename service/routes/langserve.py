"""LangServe's routes for each graph. The only file that knows LangServe (its licence is its own)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from langgraph.types import Send
from langserve import add_routes
from langserve.callbacks import AsyncEventAggregatorCallback
from langserve.serialization import WellKnownLCSerializer
from pydantic import BaseModel, ValidationError
from sse_starlette import EventSourceResponse
from starlette.routing import Match
from starlette.types import Scope

from core.errors import InvalidRequest, ServiceError
from graphs.registry import REGISTRY
from service.audit.idempotency import KeyClaim
from service.errors import error_body, error_response, invalid_request, to_service_error
from service.lifespan import Service
from service.middleware.readable_body import require_readable
from service.routes.dependencies import answer_until_disconnect, get_requester
from service.routes.langserve_runnable import CLAIMED_KEY, FRESH_KEY, IDENTITY_KEY, SERVICE_KEY, ServedGraph
from service.routes.sse import gathered
from service.runs.replay import IDEMPOTENCY_HEADER, claim_request_key
from service.runs.request import build_served_input_schema, check_thread_id, new_thread_id

THREAD_HEADER = "X-Thread-Id"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Event = dict[str, Any]


@cache
def langserve_router() -> APIRouter:
    """Invoke, batch, the three streams, schemas and playground under ``/{graph}``, for each graph.

    Made once: hundreds of routes with their models are more work than opening the service, and they know
    nothing of the one that serves them.
    """
    router = APIRouter()
    for spec in REGISTRY.values():
        of_graph = GraphRouter(spec.name)
        add_routes(
            of_graph,
            # LangServe has one gather every event of every run, and returns none: callback events are off.
            ServedGraph(spec, unread=AsyncEventAggregatorCallback),
            path=f"/{spec.name}",
            per_req_config_modifier=_complete_config,
            serializer=GraphSerializer(),
            enable_feedback_endpoint=False,
            enable_public_trace_link_endpoint=False,
        )
        router.include_router(of_graph)
    return router


async def _complete_config(config: dict[str, Any], request: Request) -> dict[str, Any]:
    """Put in who asks, the service that answers, and a new thread where none is named.

    A batch names none here: each of its inputs gets a thread of its own.
    """
    given = config.get("configurable", {})
    configurable = {
        **given,
        IDENTITY_KEY: get_requester(request),
        SERVICE_KEY: request.app.state.service,
    }
    key = request.headers.get(IDEMPOTENCY_HEADER, "")
    if not request.url.path.endswith("/batch"):
        named = configurable.get("thread_id") or await _session(request)
        configurable[FRESH_KEY] = not named
        configurable["thread_id"] = named or new_thread_id()
        if key:
            claimed = await _claimed(request, key, given, check_thread_id(configurable["thread_id"]))
            configurable |= {CLAIMED_KEY: claimed, "thread_id": claimed.thread_id}
        if isinstance(configurable["thread_id"], str):
            # It becomes a header; what is no text is the config schema's to refuse.
            request.state.thread_id = check_thread_id(configurable["thread_id"])
    elif key:
        raise InvalidRequest(f"a batch takes no {HEADER}: send each input as a request of its own")
    return {**config, "configurable": configurable}


async def _claimed(request: Request, key: str, named: Mapping[str, Any], thread_id: str) -> KeyClaim:
    """The request's place among those with keys. How it is listened to, and waits, is not what is asked."""
    given = await request.json()
    if isinstance(given, Mapping):
        # A key is for what can be done: an input that is mended is not another request under it.
        _input_schema(request.url.path.split("/")[1]).model_validate(given.get("input"))
    asked = {
        "graph": request.url.path.rpartition("/")[0],
        "input": given.get("input") if isinstance(given, Mapping) else None,
        "configurable": {name: value for name, value in named.items() if name != "multitask_strategy"},
    }
    service: Service = request.app.state.service
    return await claim_request_key(service, get_requester(request), key, asked, thread_id=thread_id)


@cache
def _input_schema(graph: str) -> type[BaseModel]:
    return build_served_input_schema(REGISTRY[graph])


async def _session(request: Request) -> str:
    """The session an input goes on with, a thread; what is no text is the input schema's to refuse."""
    error_body = await request.json()
    given = error_body.get("input") if isinstance(error_body, Mapping) else None
    session = given.get("session_id") if isinstance(given, Mapping) else None
    return session if isinstance(session, str) else ""


class GraphSerializer(WellKnownLCSerializer):
    """LangServe's JSON, which knows neither ``Send`` nor whatever else stands in a graph's events."""

    def dumps(self, obj: Any) -> bytes:
        """Dump to JSON; what has no JSON form is shown as text."""
        return orjson.dumps(obj, default=_jsonable, option=orjson.OPT_NON_STR_KEYS)


def _jsonable(value: Any) -> Any:
    match value:
        case BaseModel():
            return value.model_dump()
        case Send():
            return {"node": value.node, "arg": value.arg}
        case set() | frozenset() | tuple():
            return list(value)
        case _:
            return repr(value)


class GraphRouter(APIRouter):
    """The routes of one graph, which are looked through for its own requests alone.

    All graphs have some two hundred; to compare each with every request was a sixth of what a run costs.

    Args:
        graph: Its name, the first part of its paths.
    """

    def __init__(self, graph: str) -> None:
        super().__init__(route_class=GraphRoute)
        self._start = f"/{graph}/"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether one of the routes is asked for."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return super().matches(scope) if path.startswith(self._start) else (Match.NONE, {})


class GraphRoute(APIRoute):
    """A LangServe route with our errors, the thread's header, and an eye on the client."""

    def get_route_handler(self) -> Handler:
        """Wrap LangServe's handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            answer = await answer_until_disconnect(request, _answer(handler, request))
            if thread_id := getattr(request.state, "thread_id", None):
                answer.headers[THREAD_HEADER] = thread_id
            return answer

        return handle


async def _answer(handler: Handler, request: Request) -> Response:
    try:
        await require_readable(request)
        answer = await handler(request)
    except ServiceError as error:
        return error_response(error)
    except ValidationError as error:
        # LangServe lets the inputs of a batch through to here; a run's own errors are typed by now.
        return error_response(invalid_request(error.errors(include_url=False, include_context=False)))
    if isinstance(answer, EventSourceResponse):
        return await _started(answer)
    return answer


async def _started(answer: EventSourceResponse) -> Response:
    """The stream once its first event exists: a run that cannot begin is answered with its own status."""
    events = _described(answer.body_iterator)
    try:
        # LangServe's streams have an "end" event at least.
        first = await anext(events)
    except ServiceError as error:
        return error_response(error)
    answer.body_iterator = gathered(_resumed(first, events))
    return answer


async def _resumed(first: Event, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    try:
        yield first
        async for event in events:
            yield event
    except ServiceError as error:
        # status_code is what LangServe's own client reads.
        data = {**error_body(error), "status_code": error.status}
        yield {"event": "error", "data": json.dumps(data, ensure_ascii=False)}
    finally:
        await events.aclose()


async def _described(events: Any) -> AsyncGenerator[Event, None]:
    """LangServe's events; where it would say "Internal Server Error", the typed error is raised.

    LangServe's generators answer every exception, their own cancellation included, with an error event
    and raise it when asked for the next one.
    """
    try:
        async for event in events:
            if event.get("event") != "error":
                yield event
    except asyncio.CancelledError:
        raise
    except Exception as error:
        raise to_service_error(error) from error
    finally:
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
            await events.athrow(asyncio.CancelledError())
            await anext(events)
