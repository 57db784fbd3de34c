"""LangServe's routes for each graph. Only this module imports LangServe, which has its own licence."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
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
from service.auth.rate_limits import build_refusal
from service.errors import error_body, error_response, invalid_request, to_service_error
from service.lifespan import Service
from service.routes.dependencies import (
    RUN_HEADER,
    THREAD_HEADER,
    answer_until_disconnect,
    get_requester,
)
from service.routes.langserve_runnable import (
    CLAIMED_KEY,
    FAILED_KEY,
    FRESH_KEY,
    IDENTITY_KEY,
    RUN_ID_KEY,
    SERVICE_KEY,
    ServedGraph,
)
from service.routes.sse import join_chunks, wait_for_first
from service.runs.inputs import build_served_input_schema
from service.runs.replay import IDEMPOTENCY_HEADER, claim_request_key
from service.runs.request import check_thread_id, new_run_id, new_thread_id

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Event = dict[str, Any]

# LangChain.js takes every object with one of these keys for a prompt, and drops all else in it. Its clients
# get them under other names.
PROMPT_KEYS: Final[Mapping[str, str]] = {"messages": "message_list", "text": "text_value"}
# Its configs have this key, which LangChain for Python writes with an underscore.
_JAVASCRIPT_KEY: Final = "recursionLimit"
# Of the settings beside an input, those that LangChain.js adds by itself and those that say something here.
_IGNORED_KWARGS: Final = frozenset({"version"})
_RETURN_EXCEPTIONS: Final = "return_exceptions"

_is_javascript: ContextVar[bool] = ContextVar("is_javascript", default=False)


@cache
def langserve_router() -> APIRouter:
    """Return invoke, batch, the three streams and the schemas under ``/{graph}``, for each graph.

    Built once: hundreds of routes with their models take longer than opening the service, and they do not
    depend on the service that serves them.
    """
    router = APIRouter()
    for spec in REGISTRY.values():
        graph_router = GraphRouter(spec.name)
        add_routes(
            graph_router,
            # LangServe collects every event of every run and returns none: callback events are off.
            ServedGraph(spec, unread=AsyncEventAggregatorCallback),
            path=f"/{spec.name}",
            per_req_config_modifier=_complete_config,
            serializer=GraphSerializer(),
            # Each route again under `/c/{config_hash}`: twice the routes, for links that nobody shares. The
            # playground is our own page (service/routes/pages.py); nothing here gives feedback to LangSmith.
            disabled_endpoints=("config_hashes", "playground", "token_feedback"),  # type: ignore[arg-type]  # it knows the last one
            enable_feedback_endpoint=False,
            enable_public_trace_link_endpoint=False,
        )
        router.include_router(graph_router)
    return router


class GraphRouter(APIRouter):
    """The routes of one graph, which are searched only for requests to that graph.

    All graphs together have some two hundred; comparing each with every request was a sixth of a run's cost.

    Args:
        graph: Its name, the first part of its paths.
    """

    def __init__(self, graph: str) -> None:
        super().__init__(route_class=GraphRoute)
        self._prefix = f"/{graph}/"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the request is for one of the routes."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return super().matches(scope) if path.startswith(self._prefix) else (Match.NONE, {})


class GraphRoute(APIRoute):
    """A LangServe route with typed errors, the thread's header, and a stop when the client disconnects."""

    def get_route_handler(self) -> Handler:
        """Wrap LangServe's handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            # Here, because the stream is sent in this task and the run is begun in another.
            _is_javascript.set(await _is_sent_by_javascript(request))
            answer = await answer_until_disconnect(request, _answer(handler, request))
            if thread_id := getattr(request.state, "thread_id", None):
                answer.headers[THREAD_HEADER] = thread_id
            if run_id := getattr(request.state, "run_id", None):
                answer.headers[RUN_HEADER] = run_id
            return answer

        return handle


async def _answer(handler: Handler, request: Request) -> Response:
    try:
        await _require_readable_body(request)
        answer = await handler(request)
        if isinstance(answer, EventSourceResponse):
            events = await wait_for_first(_raise_errors(answer.body_iterator), _to_error_event)
            names = {name: getattr(request.state, name, "") for name in ("thread_id", "run_id")}
            answer.body_iterator = join_chunks(events, _to_error_event, **names)
        elif failed := getattr(request.state, "failed", {}):
            answer = _change_output(answer, partial(_insert_failed, failed=failed))
        if isinstance(answer, JSONResponse) and _is_javascript.get():
            answer = _change_output(answer, _rename_prompt_keys)
    except ServiceError as error:
        return error_response(error)
    except ValidationError as error:
        # LangServe validates the inputs of a batch this late; errors of the run itself are typed by now.
        return error_response(invalid_request(error.errors(include_url=False, include_context=False)))
    return answer


def _change_output(answer: Response, change: Callable[[Any], Any]) -> Response:
    body = orjson.loads(answer.body)
    return JSONResponse({**body, "output": change(body["output"])})


def _insert_failed(output: list[Any], failed: Mapping[int, Any]) -> list[Any]:
    """Return the outputs of a batch with the errors of those that failed, in the places of their inputs."""
    for index, error in sorted(failed.items()):
        output.insert(index, error)
    return output


async def _require_readable_body(request: Request) -> None:
    """Check the shapes that LangServe relies on; it answers others with 500.

    Starlette keeps the parsed body, so nothing is parsed twice.

    Raises:
        InvalidRequest: The body is not JSON, its ``config`` or ``inputs`` have the wrong shape, or it has
            settings that LangServe would drop without a word.
    """
    if request.method != "POST":
        return
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise InvalidRequest("body: it must be JSON in UTF-8, nested no deeper than a thousand") from None
    if not isinstance(body, Mapping):
        raise InvalidRequest("body: it must be an object")
    inputs = body.get("inputs", [])
    if not isinstance(inputs, list):
        raise InvalidRequest("inputs: it must be a list")
    if _is_batch(request):
        await _count_inputs(request, len(inputs))
    config = body.get("config", {})
    # A batch may have a config for each input.
    configs = config if isinstance(config, list) else [config]
    if not all(isinstance(one, Mapping) for one in configs):
        raise InvalidRequest("config: it must be an object; leave it out where there is nothing to say")
    for one in configs:
        _require_known_settings(one.get("configurable") or {})
    _require_known_kwargs(body.get("kwargs"), is_batch=_is_batch(request))


def _require_known_kwargs(kwargs: Any, *, is_batch: bool) -> None:
    # LangChain.js sends one object for each input of a batch.
    each_kwargs = kwargs if isinstance(kwargs, list) else [kwargs or {}]
    if not all(isinstance(each, Mapping) for each in each_kwargs):
        raise InvalidRequest("kwargs: it must be an object; leave it out where there is nothing to say")
    given = {name for each in each_kwargs for name in each}
    known = _IGNORED_KWARGS | ({_RETURN_EXCEPTIONS} if is_batch else set())
    if unknown := sorted(given - known):
        raise InvalidRequest(f"kwargs.{unknown[0]}: it has no effect here; leave it out")


async def _is_sent_by_javascript(request: Request) -> bool:
    """Return whether the request is one of LangChain.js."""
    try:
        body = await request.json() if request.method == "POST" else None
    except (ValueError, RecursionError):
        # Answered with 422 below.
        return False
    config = body.get("config") if isinstance(body, Mapping) else None
    configs = config if isinstance(config, list) else [config]
    return any(isinstance(each, Mapping) and _JAVASCRIPT_KEY in each for each in configs)


def _is_batch(request: Request) -> bool:
    return request.url.path.endswith("/batch")


async def _count_inputs(request: Request, inputs: int) -> None:
    """Count each input of a batch as a request of its tenant; the middleware has counted the first.

    Raises:
        InvalidRequest: There are more inputs than one batch may have.
        RateLimited: The tenant's rate does not allow all of them.
    """
    service: Service = request.app.state.service
    limit = service.settings.limits.limit_batch_inputs
    if inputs > limit:
        raise InvalidRequest(
            f"inputs: a batch has at most {limit} here; send the rest in further batches",
            details={"inputs": inputs, "limit": limit},
        )
    tenant = get_requester(request).tenant
    if service.rates is None or not tenant or inputs <= 1:
        return
    status = await service.rates.count_request(tenant, weight=inputs - 1)
    if status is None:
        return
    request.state.rate = status
    if not status.allowed:
        raise build_refusal(status)


def _require_known_settings(configurable: Any) -> None:
    known = [spec.id for spec in ServedGraph.config_fields]
    if not isinstance(configurable, Mapping):
        raise InvalidRequest("config.configurable: it must be an object")
    if unknown := sorted(configurable.keys() - known):
        raise InvalidRequest(
            f"config.configurable.{unknown[0]}: it has no effect here; a run can be given {', '.join(known)}",
            details={"unknown": [name[:100] for name in unknown[:10]], "known": known},
        )


async def _raise_errors(events: Any) -> AsyncGenerator[Event, None]:
    """Yield LangServe's events; raise the typed error where LangServe would say "Internal Server Error".

    LangServe's generators answer every exception, including their own cancellation, with an error event, and
    raise it when the next event is requested.
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


def _to_error_event(error: ServiceError) -> Event:
    # status_code is what LangServe's own client reads.
    data = {**error_body(error), "status_code": error.status}
    return {"event": "error", "data": json.dumps(data, ensure_ascii=False)}


async def _complete_config(config: dict[str, Any], request: Request) -> dict[str, Any]:
    """Add the caller, the service, and a new thread where none is named.

    A batch gets no thread here: each of its inputs has a thread of its own.
    """
    given = config.get("configurable", {})
    configurable = {**given, IDENTITY_KEY: get_requester(request), SERVICE_KEY: request.app.state.service}
    key = request.headers.get(IDEMPOTENCY_HEADER, "")
    if not _is_batch(request):
        named = configurable.get("thread_id") or await _get_session_id(request)
        configurable[FRESH_KEY] = not named
        configurable["thread_id"] = named or new_thread_id()
        if key:
            claimed = await _claim_key(request, key, given, check_thread_id(configurable["thread_id"]))
            configurable |= {CLAIMED_KEY: claimed, "thread_id": claimed.thread_id}
        if not (key and claimed.repeated):
            request.state.run_id = configurable[RUN_ID_KEY] = new_run_id()
        if isinstance(configurable["thread_id"], str):
            # It becomes a header; the config schema refuses what is no text.
            request.state.thread_id = check_thread_id(configurable["thread_id"])
    elif key:
        raise InvalidRequest(
            f"a batch takes no {IDEMPOTENCY_HEADER}: send each input as a request of its own"
        )
    else:
        kwargs = (await request.json()).get("kwargs")
        if isinstance(kwargs, Mapping) and kwargs.get(_RETURN_EXCEPTIONS):
            request.state.failed = configurable[FAILED_KEY] = getattr(request.state, "failed", {})
    return {**config, "configurable": configurable}


async def _claim_key(request: Request, key: str, given: Mapping[str, Any], thread_id: str) -> KeyClaim:
    """Claim a request's key for its graph, input and configuration.

    The endpoint and the multitask strategy are no part of the request: they say how its caller listens and
    waits, not what is asked.
    """
    body = await request.json()
    graph_input = body.get("input") if isinstance(body, Mapping) else None
    if isinstance(body, Mapping):
        # An invalid input claims no key, so that the corrected one may use it.
        _get_input_schema(request.url.path.split("/")[1]).model_validate(graph_input)
    asked = {
        "graph": request.url.path.rpartition("/")[0],
        "input": graph_input,
        "configurable": {name: value for name, value in given.items() if name != "multitask_strategy"},
    }
    service: Service = request.app.state.service
    return await claim_request_key(service.requests, get_requester(request), key, asked, thread_id=thread_id)


@cache
def _get_input_schema(graph: str) -> type[BaseModel]:
    return build_served_input_schema(REGISTRY[graph])


async def _get_session_id(request: Request) -> str:
    """Return the session (a thread) that an input names; the input schema refuses what is no text."""
    body = await request.json()
    graph_input = body.get("input") if isinstance(body, Mapping) else None
    session = graph_input.get("session_id") if isinstance(graph_input, Mapping) else None
    return session if isinstance(session, str) else ""


class GraphSerializer(WellKnownLCSerializer):
    """LangServe's JSON, extended by ``Send`` and whatever else occurs in a graph's events."""

    def dumps(self, obj: Any) -> bytes:
        """Dump to JSON; what has no JSON form is shown as text."""
        text = orjson.dumps(obj, default=_to_jsonable, option=orjson.OPT_NON_STR_KEYS)
        return orjson.dumps(_rename_prompt_keys(orjson.loads(text))) if _is_javascript.get() else text

    def dumpd(self, obj: Any) -> Any:
        """Return an output as JSON that LangServe validates, so that its keys have their own names."""
        return orjson.loads(orjson.dumps(obj, default=_to_jsonable, option=orjson.OPT_NON_STR_KEYS))


def _rename_prompt_keys(value: Any) -> Any:
    """Return JSON in which LangChain.js finds no prompt."""
    if isinstance(value, list):
        return [_rename_prompt_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() >= {"content", "type", "additional_kwargs"}:
        # A message, whose content it leaves alone.
        return value
    return {PROMPT_KEYS.get(name, name): _rename_prompt_keys(item) for name, item in value.items()}


def _to_jsonable(value: Any) -> Any:
    match value:
        case BaseModel():
            return value.model_dump()
        case Send():
            return {"node": value.node, "arg": value.arg}
        case set() | frozenset() | tuple():
            return list(value)
        case _:
            return repr(value)
