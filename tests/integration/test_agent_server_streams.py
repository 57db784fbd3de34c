"""Streams of runs and threads, as LangGraph's clients read them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from httpx_sse import ServerSentEvent, aconnect_sse
from langchain_core.messages import AIMessage
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.schema import StreamMode

from tests.integration.test_approvals import APPROVE, SEND
from tests.integration.test_react_over_http import SEARCH
from tests.support.replicas import Gate, Replicas, two_replicas
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service
from tests.support.waiting import until

ANSWER = "Use the batch export API."
INPUT: dict[str, Any] = {
    "task": "I get Error 500 when I try to export my contacts. Can you help?",
    "contact_id": CONTACT,
}
BODY = {"assistant_id": "react", "input": INPUT, "if_not_exists": "create"}
ALL_MODES: list[StreamMode] = [
    "values",
    "updates",
    "messages",
    "messages-tuple",
    "custom",
    "tasks",
    "checkpoints",
    "debug",
]


def reply(text: str = ANSWER) -> AIMessage:
    return AIMessage(f"<reply>{text}</reply>")


@pytest.fixture
async def model() -> ScriptedChatModel:
    return ScriptedChatModel(replies=[reply()])


@pytest.fixture
async def running(database_url: str, model: ScriptedChatModel) -> AsyncIterator[RunningService]:
    async with running_service(database_url, scripted_models(model)) as opened:
        yield opened


@pytest.fixture
async def client(running: RunningService) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=running.url) as opened:
        yield opened


async def read(
    running: RunningService, method: str, path: str, **request: Any
) -> tuple[dict[str, str], list[ServerSentEvent]]:
    async with aconnect_sse(running.http, method, path, **request) as source:
        assert source.response.status_code == 200, await source.response.aread()
        return dict(source.response.headers), [event async for event in source.aiter_sse()]


def show(events: list[ServerSentEvent]) -> list[tuple[str, str, str]]:
    return [(event.id, event.event, event.data) for event in events]


async def test_a_run_is_streamed_in_all_modes_and_subgraphs_are_named(client: LangGraphClient) -> None:
    created: list[Any] = []
    events: dict[str, list[Any]] = {}
    first = ""
    async for event in client.runs.stream(
        str(uuid4()),
        "coordinator",
        input={
            "message": "Where is my order? It should have arrived on Monday.",
            "contact_id": CONTACT,
        },
        stream_mode=ALL_MODES,
        stream_subgraphs=True,
        if_not_exists="create",
        on_run_created=created.append,
    ):
        first = first or event.event
        events.setdefault(event.event, []).append(event.data)
    assert first == "metadata"
    assert events["metadata"] == [{"run_id": created[0]["run_id"], "attempt": 1}]
    assert events["values"][-1]["response"] == ANSWER
    assert {"updates", "tasks", "checkpoints", "debug"} <= events.keys()
    [inner] = {name for name in events if name.startswith("messages|")}
    chunks = [chunk for chunk, metadata in events[inner] if "answer" in metadata.get("tags", [])]
    assert "".join(chunk["content"] for chunk in chunks) == ANSWER
    assert events["messages/partial"][-1][0]["content"] == ANSWER
    assert any(message["content"] == ANSWER for [message] in events["messages/complete"])
    assert "error" not in events


async def test_a_run_is_streamed_as_events_of_all_that_it_calls(
    client: LangGraphClient, model: ScriptedChatModel
) -> None:
    model.replies[:] = [calling("I refund.", SEND), reply()]
    thread = await client.threads.create()
    asked = [
        each
        async for each in client.runs.stream(
            thread["thread_id"],
            "react",
            input={**INPUT, "reflection": "never"},
            stream_mode=["events", "values"],
        )
    ]
    run_id, events = asked[0].data["run_id"], [each.data for each in asked if each.event == "events"]
    assert (events[0]["event"], events[0]["run_id"], events[0]["parent_ids"]) == (
        "on_chain_start",
        run_id,
        [],
    )
    assert events[0]["data"]["input"]["task"] == INPUT["task"]
    assert (events[-1]["event"], events[-1]["run_id"]) == ("on_chain_end", run_id)
    assert not [each for each in events if each["event"] == "on_chain_stream" and each["run_id"] == run_id]
    [begun] = [each for each in events if each["event"] == "on_chat_model_start"]
    assert begun["parent_ids"][0] == run_id
    assert begun["metadata"]["langgraph_node"] == "think"
    assert {each.event for each in asked} == {"metadata", "events", "values", "updates", "end"}
    assert [each.event for each in asked if "__interrupt__" in (each.data or {})] == ["updates", "values"]

    told = [
        each
        async for each in client.runs.stream(
            thread["thread_id"], "react", command={"resume": APPROVE}, stream_mode="events"
        )
    ]
    texts = [each.data for each in told if each.event == "events"]
    chunks = [each["data"]["chunk"] for each in texts if each["event"] == "on_chat_model_stream"]
    assert ANSWER in "".join(chunk["content"] for chunk in chunks)
    assert [each.event for each in told if each.event != "events"] == ["metadata", "end"]
    state: Any = await client.threads.get_state(thread["thread_id"])
    assert (state["values"]["final_answer"], state["next"]) == (ANSWER, [])


async def test_a_run_that_is_streamed_as_events_says_why_it_failed(
    client: LangGraphClient, model: ScriptedChatModel
) -> None:
    model.replies[:] = [RuntimeError("broken")]
    streamed = client.runs.stream(
        str(uuid4()), "react", input=INPUT, stream_mode="events", if_not_exists="create"
    )
    events = [each async for each in streamed]
    assert [each.event for each in events[-2:]] == ["error", "end"]


async def test_a_stream_says_where_its_run_is_and_ends_with_end(running: RunningService) -> None:
    thread = str(uuid4())
    headers, events = await read(
        running, "POST", f"/threads/{thread}/runs/stream", json={**BODY, "stream_mode": "messages-tuple"}
    )
    run_id = events[0].json()["run_id"]
    assert headers["content-location"] == f"/threads/{thread}/runs/{run_id}"
    assert headers["location"] == f"/threads/{thread}/runs/{run_id}/stream"
    assert {event.event for event in events} == {"metadata", "messages", "end"}
    path = headers["location"]
    _, again = await read(running, "GET", path, headers={"Last-Event-ID": "-1"})
    assert show(again) == show(events)
    middle = len(events) // 2
    _, rest = await read(running, "GET", path, headers={"Last-Event-ID": events[middle].id})
    assert show(rest) == show(events[middle + 1 :])
    _, live = await read(running, "GET", path)
    assert [event.event for event in live] == ["end"]
    refused = await running.http.get(path, headers={"Last-Event-ID": "yesterday"})
    assert refused.status_code == 422
    _, missing = await read(running, "GET", f"/threads/{thread}/runs/{uuid4()}/stream")
    assert [(event.event, event.json()["error"]) for event in missing] == [("error", "not_found")]


async def test_a_run_that_waits_says_its_question_and_goes_on_with_the_answer(
    client: LangGraphClient, model: ScriptedChatModel
) -> None:
    model.replies[:] = [calling("I refund.", SEND), reply()]
    thread = await client.threads.create()
    given = {**INPUT, "reflection": "never"}
    asked = [each async for each in client.runs.stream(thread["thread_id"], "react", input=given)]
    [question] = [each.data["__interrupt__"] for each in asked if each.event == "updates"]
    assert question[0]["value"]["tool"] == SEND[0]
    assert asked[-2].data["__interrupt__"] == question
    answered = [
        each async for each in client.runs.stream(thread["thread_id"], "react", command={"resume": APPROVE})
    ]
    assert answered[-2].data["final_answer"] == ANSWER


async def test_a_run_that_fails_says_so_at_the_end_of_its_stream(
    running: RunningService, model: ScriptedChatModel
) -> None:
    model.replies[:] = [ZeroDivisionError("a bug")]
    _, events = await read(running, "POST", "/runs/stream", json=BODY)
    assert [event.event for event in events[-2:]] == ["error", "end"]
    assert events[-2].json()["error"] == "internal_error"
    assert "a bug" not in events[-2].data


@pytest.mark.parametrize(("on_disconnect", "status"), [("cancel", "interrupted"), ("continue", "success")])
async def test_a_client_that_leaves_stops_its_run_only_if_it_asked_for_that(
    running: RunningService, model: ScriptedChatModel, on_disconnect: str, status: str
) -> None:
    model.replies.insert(0, calling("I look it up.", SEARCH))
    gate, thread = Gate(model), str(uuid4())
    body = {**BODY, "input": {**INPUT, "reflection": "never"}, "on_disconnect": on_disconnect}
    async with aconnect_sse(running.http, "POST", f"/threads/{thread}/runs/stream", json=body) as source:
        reading = source.aiter_sse()
        run_id = (await anext(reading)).json()["run_id"]
        await gate.begun.wait()
    row = None
    if on_disconnect == "cancel":
        while row is None or not row.cancel_action:
            row = await running.service.run_store.get(run_id)
    gate.open()
    await until(lambda: not running.service.runs.active)
    row = await running.service.run_store.get(run_id)
    assert row
    assert row.status == status


async def test_a_threads_stream_spans_its_runs(running: RunningService, model: ScriptedChatModel) -> None:
    model.replies.append(reply("Twice."))
    thread = str(uuid4())
    await read(running, "POST", f"/threads/{thread}/runs/stream", json=BODY)
    async with aconnect_sse(running.http, "GET", f"/threads/{thread}/stream") as source:
        reading = source.aiter_sse()
        waiting = asyncio.ensure_future(anext(reading))
        await read(running, "POST", f"/threads/{thread}/runs/stream", json=BODY)
        events = [await waiting]
        while events[-1].event != "end":
            events.append(await anext(reading))
    assert events[0].event == "metadata"
    assert events[-2].json()["final_answer"] == "Twice."
    ids = [int(event.id) for event in events if event.id]
    assert ids == sorted(ids)


async def test_another_replica_streams_a_run_as_the_one_that_executes_it(database_url: str) -> None:
    async with two_replicas(database_url) as replicas:
        sent, joined = await _stream_and_join(replicas)
    assert [event.event for event in joined][-1] == "end"
    assert show(joined) == show(sent)


async def _stream_and_join(replicas: Replicas) -> tuple[list[ServerSentEvent], list[ServerSentEvent]]:
    replicas.models[0].replies.append(reply())
    gate, thread = Gate(replicas.models[0]), str(uuid4())
    body = {**BODY, "stream_mode": ["messages-tuple", "values", "updates"]}
    sending = asyncio.create_task(read(replicas.first, "POST", f"/threads/{thread}/runs/stream", json=body))
    await gate.begun.wait()
    [run] = (await replicas.second.http.get(f"/threads/{thread}/runs")).json()
    path = f"/threads/{thread}/runs/{run['run_id']}/stream"
    joining = asyncio.create_task(read(replicas.second, "GET", path, headers={"Last-Event-ID": "-1"}))
    gate.open()
    return (await sending)[1], (await joining)[1]
