"""Requests made up from the OpenAPI document, nearly right ones: none is answered with a fault of ours.

``make fuzz`` does more of it, with a tool made for it.
"""

import copy
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.settings import QueueSettings, RunSettings
from graphs.registry import REGISTRY
from service.app import create_app
from tests.support.identity import WITH_KEYS, key_of
from tests.support.profiles import examples
from tests.support.service import CONTACT, RunningService, running_service

PATHS = create_app().openapi()["paths"]
# LangServe's routes are made by the same code for each graph.
OPERATIONS = [
    (method, path)
    for path, methods in PATHS.items()
    for method in methods
    if path.startswith(("/v1", "/health", "/info", "/react"))
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
# Besides anything: what is near to what a field takes, and what databases and paths choke on.
VALUES = JSON | st.sampled_from(
    ["", "\0", "\ud800", "../..", "x" * 300, 10**30, -1, CONTACT, "thread\n", [[]], {}]
)
CONFIG = {"configurable": {"thread_id": "any", "multitask_strategy": "enqueue", "locale": "en"}}
RUN = {"input": dict(REGISTRY["react"].example), "config": CONFIG}
BODIES = {
    "/v1/messages": {
        "contact_id": CONTACT,
        "message": "Hello",
        "channel_id": "mail",
        "session_id": "s",
        "message_id": "m",
        "metadata": {"a": 1},
        "multitask_strategy": "enqueue",
    },
    "batch": {"inputs": [RUN["input"]], "config": CONFIG},
}


class Caller:
    """Sends requests with a key; small, as Hypothesis prints what a test is given."""

    def __init__(self, running: RunningService, key: dict[str, str]) -> None:
        self.send = running.http.send
        self.build = partial(running.http.build_request, headers=key)


@pytest.fixture(scope="module")
async def caller(shared_database_url: str) -> AsyncIterator[Caller]:
    runs = RunSettings(timeout_seconds=10)
    async with running_service(
        shared_database_url, auth=WITH_KEYS, runs=runs, queue=QueueSettings()
    ) as opened:
        yield Caller(opened, await key_of(opened.service, "acme", "admin"))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a body, the whole of it first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, one in inner for place in places(one, (*path, name)))]


@st.composite
def bodies(draw: st.DrawFn, path: str) -> Any:
    """A right body with something else in one place, or without what is there, or with more."""
    body: Any = copy.deepcopy(BODIES.get(path) or BODIES.get(path.rsplit("/", 1)[-1]) or RUN)
    place = draw(st.sampled_from(places(body)))
    if not place:
        return draw(VALUES)
    *way, last = place
    holder: Any = body
    for step in way:
        holder = holder[step]
    match draw(st.sampled_from(["else", "without", "more"])):
        case "without":
            del holder[last]
        case "more" if isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = draw(VALUES)
        case _:
            holder[last] = draw(VALUES)
    return body


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    method, path = draw(st.sampled_from(OPERATIONS))
    word = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
    named = draw(st.sampled_from(["any", "a.b", "%00", "N4XyA", "x" * 300]) | word)
    query = draw(st.dictionaries(st.sampled_from(["limit", "offset", "contact_id"]), word, max_size=3))
    url = "/".join(named if part.startswith("{") else part for part in path.split("/"))
    request = {"method": method.upper(), "url": url, "params": query}
    return {**request, "json": draw(bodies(path))} if method == "post" else request


@settings(max_examples=examples(80), deadline=None, database=None)
@given(request=requests())
async def test_no_request_is_answered_with_a_server_error(caller: Caller, request: dict[str, Any]) -> None:
    try:
        made = caller.build(**request)
    except (UnicodeEncodeError, httpx.InvalidURL):
        # What a client cannot send, it does not.
        return
    answer = await caller.send(made)
    assert answer.status_code < 500, answer.text
    # What clients of OpenAI's API call has the errors of that API.
    is_openai = made.url.path.startswith(("/v1/models", "/v1/chat/"))
    if answer.status_code >= 400:
        assert set(answer.json()) == ({"error"} if is_openai else {"error", "message", "details"})


@pytest.mark.parametrize("path", ["/react/invoke", "/react/batch", "/react/stream_log", "/v1/messages"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xd2",
        b'"\xff"',
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"input": {}, "config": null}',
        b'{"inputs": null}',
        b'{"inputs": [null], "config": [null]}',
        b'{"inputs": [{}], "config": {"configurable": null}}',
        b'{"input": {}, "config": {"metadata": 3, "tags": {}}}',
        b'{"input": {}, "kwargs": []}',
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused(caller: Caller, path: str, content: bytes) -> None:
    sent = caller.build("POST", path, content=content)
    sent.headers["Content-Type"] = "application/json"
    answer = await caller.send(sent)
    assert answer.status_code in {400, 422}, answer.text
    assert set(answer.json()) == {"error", "message", "details"}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("colour", {"colour": "red"}),
        ("config.recursion", {"config": {"recursion": 3}}),
        ("config.configurable.model", {"config": {"configurable": {"model": "openai:gpt-4o"}}}),
        ("kwargs.colour", {"kwargs": {"colour": "red"}}),
    ],
)
async def test_a_field_that_has_no_effect_is_refused_by_name(
    caller: Caller, field: str, change: dict[str, Any]
) -> None:
    body = {"input": dict(REGISTRY["react"].example), **change}
    answer = await caller.send(caller.build("POST", "/react/invoke", json=body))
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert answer.json()["message"].startswith(f"{field}: it has no effect here")


@pytest.mark.parametrize("thread_id", ["\x00", "a\r\nb", "é", "日本", "x" * 201])
@pytest.mark.parametrize("path", ["/react/invoke", "/react/stream", "/coordinator/invoke"])
async def test_a_malformed_thread_id_is_refused(caller: Caller, path: str, thread_id: str) -> None:
    given = {"task": "Export fails.", "message": "Export fails.", "contact_id": "c"}
    body = {"input": given, "config": {"configurable": {"thread_id": thread_id}}}
    answer = await caller.send(caller.build("POST", path, json=body))
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert "X-Thread-Id" not in answer.headers


WITH_NUL = ["/v1/sessions/%00", "/v1/sessions?contact_id=a%00"]


@pytest.mark.parametrize("url", WITH_NUL)
async def test_nul_is_refused_in_paths_and_queries(caller: Caller, url: str) -> None:
    answer = await caller.send(caller.build("GET", url))
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")


EXTREMES = [
    *("-1", str(2**31), str(2**63), "1" + "0" * 400, "1e308", "nan", "x" * 5_000),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
]
QUERIES = [
    (path, parameter["name"], parameter["in"])
    for path, methods in PATHS.items()
    for parameter in methods.get("get", {}).get("parameters", [])
    if path.startswith("/v1") and parameter["in"] in {"query", "header"}
]


async def test_no_value_of_a_query_parameter_is_a_server_error(caller: Caller) -> None:
    step = {"id": "a", "type": "data_processing", "operation": "count", "source": "`[]`"}
    body = {"definition": {"name": "one", "steps": [step]}, "wait": True}
    started = await caller.send(caller.build("POST", "/v1/workflows", json=body))
    assert started.json()["status"] == "succeeded", started.text
    failures = []
    for path, name, place in QUERIES:
        url = "/".join(started.json()["id"] if part.startswith("{") else part for part in path.split("/"))
        for value in EXTREMES:
            others = {"contact_id": CONTACT} if name != "contact_id" else {}
            request = caller.build("GET", url, params=others | ({name: value} if place == "query" else {}))
            if place == "header":
                request.headers[name] = value
            answer = await caller.send(request)
            if answer.status_code >= 500:
                failures.append((path, name, value[:30]))
    assert failures == []


def test_every_number_in_a_query_has_an_upper_bound() -> None:
    """A number that Postgres cannot hold is the caller's fault, and is found before it is sent there."""
    numbers = [
        (path, parameter["name"], schema)
        for path, methods in PATHS.items()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
        for schema in parameter["schema"].get("anyOf", [parameter["schema"]])
        if schema.get("type") in {"integer", "number"}
    ]
    assert len(numbers) > 5
    assert [(path, name) for path, name, schema in numbers if schema.get("maximum", 2**63) >= 2**63] == []
