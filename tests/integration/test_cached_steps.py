"""A step answered from the cache looks like any other, except that it is quicker."""

import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx_sse import aconnect_sse
from langchain_core.messages import AIMessage
from langgraph.types import StreamMode
from langserve import RemoteRunnable

from checkpoints.cache import BoundedMemoryCache
from core.settings import CacheSettings
from graphs.registry import REGISTRY
from service.auth.principal import Identity
from service.runs.request import build_run_request
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

SPEC = REGISTRY["coordinator"]
# Fields that differ between two conversations.
# How far memory has indexed the first message when the second one searches is not the cache's affair.
VARYING = ("session_id", "run_id", "message_id", "thread_id", "id", "context", "degraded")


@pytest.fixture(scope="module")
async def routed(shared_database_url: str) -> AsyncIterator[tuple[RunningService, list[str]]]:
    """Yield a service and the list of texts its router was asked about."""
    model = ScriptedChatModel(replies=[AIMessage("Hello.") for _ in range(40)])
    settings = CacheSettings(backend="memory")
    async with running_service(shared_database_url, scripted_models(model), cache=settings) as running:
        router, asked = running.service.agents.router, []
        parts = router.route_parts

        async def noted(text: str) -> Any:
            asked.append(text)
            return await parts(text)

        router.route_parts = noted  # type: ignore[method-assign]
        yield running, asked


async def greet(running: RunningService, tenant: str, message: str) -> list[tuple[StreamMode, Any]]:
    """Send the first message of a new conversation and return the parts of its stream."""
    request = build_run_request(
        running.service.graphs[SPEC.name],
        SPEC,
        SPEC.input_schema(message=message, contact_id=CONTACT),
        identity=Identity(tenant, "ana"),
        thread_id=None,
    )
    async with running.service.runs.stream(request) as parts:
        return [(part["type"], part["data"]) async for part in parts]


async def test_a_greeting_is_routed_once_for_each_tenant(
    routed: tuple[RunningService, list[str]],
) -> None:
    running, asked = routed
    first = await greet(running, "acme", "Good evening!")
    again = await greet(running, "acme", "Good evening!")
    assert asked == ["Good evening!"]
    other = await greet(running, "globex", "Good evening!")
    assert asked == ["Good evening!"] * 2

    def routing(parts: list[tuple[StreamMode, Any]]) -> list[Any]:
        return [data for kind, data in parts if kind == "updates" and "classify" in data]

    [fresh], [cached], [foreign] = routing(first), routing(again), routing(other)
    assert cached["classify"] == fresh["classify"] == foreign["classify"]
    assert [each.get("__metadata__") for each in (fresh, cached, foreign)] == [None, {"cached": True}, None]


async def test_a_stream_has_the_same_events(routed: tuple[RunningService, list[str]]) -> None:
    running, asked = routed

    async def events() -> list[tuple[str, Any]]:
        body = {"contact_id": CONTACT, "message": "Good morning!"}
        headers = {"Accept": "text/event-stream"}
        async with aconnect_sse(running.http, "POST", "/v1/messages", json=body, headers=headers) as source:
            return [(event.event, _drop_varying(event.json())) async for event in source.aiter_sse()]

    first, again = await events(), await events()
    assert asked.count("Good morning!") == 1
    assert [name for name, _ in first] == ["start", "agent", "token", "done"]
    assert again == first


async def test_langserves_client_sees_every_step_of_a_cached_run(
    routed: tuple[RunningService, list[str]],
) -> None:
    running, asked = routed
    client: RemoteRunnable[Any, Any] = RemoteRunnable(f"{running.url}/coordinator")
    given = {"message": "Hey there!", "contact_id": CONTACT}
    first, again = [[chunk async for chunk in client.astream(given)] for _ in range(2)]
    assert asked.count("Hey there!") == 1
    assert [next(iter(chunk)) for chunk in again] == [next(iter(chunk)) for chunk in first]
    assert again[-1]["output"]["dispatched"] == first[-1]["output"]["dispatched"]


async def test_a_cached_result_of_another_place_in_the_conversation_is_not_reused(
    routed: tuple[RunningService, list[str]],
) -> None:
    running, asked = routed
    body = {"contact_id": CONTACT, "message": "Hello there!"}
    first = (await running.http.post("/v1/messages", json=body)).json()
    second = await running.http.post("/v1/messages", json={**body, "session_id": first["session_id"]})
    assert second.status_code == 200
    assert asked.count("Hello there!") == 2


async def test_a_cached_run_leaves_the_same_checkpoint_as_an_uncached_one(
    routed: tuple[RunningService, list[str]],
) -> None:
    running, _ = routed
    states = []
    for _ in range(2):
        request = build_run_request(
            running.service.graphs[SPEC.name],
            SPEC,
            SPEC.input_schema(message="Good afternoon!", contact_id=CONTACT),
            identity=Identity("acme", "ana"),
            thread_id=None,
        )
        await running.service.runs.run_to_end(request)
        states.append(await running.service.graphs["coordinator"].aget_state(request.config))
    fresh, cached = (state.values for state in states)
    names = ("dispatched", "alternatives", "unclear_message", "agent_used", "confidence", "response")
    assert {name: cached[name] for name in names} == {name: fresh[name] for name in names}
    assert [state.next for state in states] == [(), ()]


async def test_customers_are_answered_while_the_cache_fails(
    routed: tuple[RunningService, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, asked = routed
    released = threading.Event()
    monkeypatch.setattr(BoundedMemoryCache, "get", lambda self, keys: released.wait(60))
    monkeypatch.setattr("checkpoints.cache.TIMEOUT_SECONDS", 0.01)
    try:
        for _ in range(2):
            body = {"contact_id": CONTACT, "message": "Good night!"}
            answer = await running.http.post("/v1/messages", json=body)
            assert answer.json()["response"] == "Hello."
    finally:
        released.set()
    assert asked.count("Good night!") == 2


def _drop_varying(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _drop_varying(each) for name, each in value.items() if name not in VARYING}
    if isinstance(value, list):
        return [_drop_varying(each) for each in value]
    return value
