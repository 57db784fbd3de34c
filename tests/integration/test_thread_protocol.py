"""Threads in the streaming protocol of LangGraph's clients: commands, and events over SSE and WebSockets."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from httpx_sse import aconnect_sse
from langchain_core.messages import AIMessage
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.integration.test_approvals import APPROVE, SEND
from tests.support.audit import fetch_rows
from tests.support.identity import WITH_KEYS, key_of
from tests.support.replicas import Gate, two_replicas
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

ANSWER = "It is refunded."
INPUT = {"task": "Make it right.", "contact_id": CONTACT, "reflection": "never"}
START = {"assistant_id": "react", "input": INPUT}
EVERYTHING = [
    "values",
    "updates",
    "messages",
    "tools",
    "lifecycle",
    "input",
    "checkpoints",
    "tasks",
    "custom",
]
Event = dict[str, Any]


@pytest.fixture
async def model() -> ScriptedChatModel:
    return ScriptedChatModel(replies=[AIMessage(f"<reply>{ANSWER}</reply>")])


@pytest.fixture
async def running(database_url: str, model: ScriptedChatModel) -> AsyncIterator[RunningService]:
    async with running_service(database_url, scripted_models(model)) as opened:
        yield opened


async def command(up: RunningService, thread: str, method: str, params: Any) -> dict[str, Any]:
    sent = {"id": 7, "method": method, "params": params}
    response = await up.http.post(f"/threads/{thread}/commands", json=sent)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def follow(up: RunningService, thread: str, **subscription: Any) -> AsyncIterator[Event]:
    subscription.setdefault("channels", EVERYTHING)
    async with aconnect_sse(up.http, "POST", f"/threads/{thread}/stream/events", json=subscription) as source:
        assert source.response.status_code == 200, await source.response.aread()
        async for event in source.aiter_sse():
            yield event.json()


async def read_until(events: AsyncIterator[Event], *ends: str) -> list[Event]:
    """Read up to a lifecycle event of the root run."""
    found: list[Event] = []
    async for event in events:
        found.append(event)
        is_root = event["method"] == "lifecycle" and not event["params"]["namespace"]
        if is_root and event["params"]["data"]["event"] in ends:
            break
    return found


def data_of(events: list[Event], method: str) -> list[Any]:
    return [event["params"]["data"] for event in events if event["method"] == method]


async def test_a_thread_is_followed_over_its_runs_on_another_replica(database_url: str) -> None:
    async with two_replicas(database_url) as replicas:
        replicas.models[0].replies[:] = [calling("I refund.", SEND), AIMessage(f"<reply>{ANSWER}</reply>")]
        gate, thread = Gate(replicas.models[0]), str(uuid4())
        started = await command(replicas.first, thread, "run.start", START)
        await gate.begun.wait()
        events = follow(replicas.second, thread)
        gate.open()
        before = await read_until(events, "interrupted")
        [asked] = data_of(before, "input.requested")
        assert asked["payload"]["tool"] == SEND[0]
        answer = {"interrupt_id": asked["interrupt_id"], "namespace": [], "response": APPROVE}
        resumed = await command(replicas.first, thread, "input.respond", answer)
        after = await read_until(events, "completed")
        seen = [*before, *after]
        again = await read_until(follow(replicas.first, thread), "completed")
        rest = await read_until(follow(replicas.second, thread, since=again[3]["seq"]), "completed")
    assert [event["event_id"].split(":")[1] for event in (before[0], after[0])] == [
        started["result"]["run_id"],
        resumed["result"]["run_id"],
    ]
    assert [event["event"] for event in data_of(seen, "lifecycle")] == [
        "running",
        "interrupted",
        "running",
        "completed",
    ]
    seqs = [event["seq"] for event in seen]
    assert seqs == sorted(set(seqs))
    assert len({event["event_id"] for event in seen}) == len(seen)
    deltas = [
        event["delta"]["text"] for event in data_of(after, "messages") if "text" in event.get("delta", {})
    ]
    assert "".join(deltas) == ANSWER
    assert [event["event"] for event in data_of(after, "tools")] == ["tool-started", "tool-finished"]
    assert data_of(after, "values")[-1]["messages"][-1]["content"] == ANSWER
    # Who comes later is shown the latest run, with the same events wherever it is read.
    assert again == after
    assert rest == after[4:]
    assert resumed["meta"]["applied_through_seq"] < after[0]["seq"]


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("run.begin", {}, "unknown_command"),
        ("state.get", {"namespace": []}, "not_supported"),
        ("subscription.subscribe", {"channels": ["values"]}, "not_supported"),
        ("run.start", {"assistant_id": "react", "input": {"task": ""}}, "invalid_argument"),
        ("run.start", {**START, "colour": "red"}, "invalid_argument"),
        ("run.start", {**START, "assistant_id": str(uuid4())}, "no_such_run"),
        ("input.respond", {"interrupt_id": "0" * 32, "response": 1}, "no_such_interrupt"),
        ("input.respond", {"responses": []}, "invalid_argument"),
        ("agent.getTree", {}, "no_such_run"),
    ],
)
async def test_a_command_that_cannot_be_carried_out_says_why(
    shared_running: RunningService, method: str, params: Any, error: str
) -> None:
    answer = await command(shared_running, str(uuid4()), method, params)
    assert (answer["type"], answer["id"], answer["error"]) == ("error", 7, error)
    assert answer["message"]


@pytest.fixture(scope="module")
async def shared_running(shared_database_url: str) -> AsyncIterator[RunningService]:
    async with running_service(shared_database_url, scripted_models(ScriptedChatModel())) as opened:
        yield opened


async def test_what_is_no_command_or_subscription_is_refused(shared_running: RunningService) -> None:
    thread = str(uuid4())
    refused = await shared_running.http.post(f"/threads/{thread}/commands", json={"method": "run.start"})
    assert (refused.status_code, refused.json()["error"]) == (400, "bad_request")
    path = f"/threads/{thread}/stream/events"
    unknown = await shared_running.http.post(path, json={"channels": ["values"]})
    assert unknown.status_code == 404
    wrong = await shared_running.http.post(path, json={"channels": ["debug"]})
    assert wrong.status_code == 422


async def test_runs_that_wait_and_are_cancelled_end_for_their_followers(
    running: RunningService, model: ScriptedChatModel
) -> None:
    gate, thread = Gate(model), str(uuid4())
    first = await command(running, thread, "run.start", START)
    await gate.begun.wait()
    events = follow(running, thread, channels=["lifecycle"])
    begun = await anext(events)
    # It waits for the first one, and the command does not.
    second = await command(running, thread, "run.start", START)
    path = f"/threads/{thread}/runs/{second['result']['run_id']}/cancel"
    assert (await running.http.post(path)).status_code == 202
    tree = await command(running, thread, "agent.getTree", {})
    assert tree["result"]["tree"]["status"] == "running"
    gate.open()
    seen = [begun, *await read_until(events, "failed")]
    assert [(event["event_id"].split(":")[1], event["params"]["data"]["event"]) for event in seen] == [
        (first["result"]["run_id"], "running"),
        (first["result"]["run_id"], "completed"),
        (second["result"]["run_id"], "failed"),
    ]


async def test_a_client_learns_that_events_it_does_not_have_are_kept_no_more(running: RunningService) -> None:
    thread = str(uuid4())
    await command(running, thread, "run.start", START)
    seen = await read_until(follow(running, thread), "completed")
    await fetch_rows(
        running.service.pool,
        "UPDATE runs.runs SET ended_at = now() - interval '10 minutes' WHERE thread_id = %s RETURNING id",
        thread,
    )
    hour_ago = seen[0]["seq"] - 3_600 * 1_000_000
    async with aconnect_sse(
        running.http,
        "POST",
        f"/threads/{thread}/stream/events",
        json={"channels": ["values"], "since": hour_ago},
    ) as source:
        reading = source.aiter_sse()
        gap = (await anext(reading)).json()
    assert (gap["type"], gap["id"], gap["error"]) == ("error", None, "resume_gap")


async def send(socket: ClientConnection, number: int, method: str, params: Any) -> Any:
    """Send a command and return its answer; events that come before it are passed over."""
    await socket.send(json.dumps({"id": number, "method": method, "params": params}))
    async for frame in socket:
        answer = json.loads(frame)
        if answer.get("id") == number:
            return answer
    raise AssertionError("the connection ended")


async def test_a_websocket_carries_commands_and_subscriptions(running: RunningService) -> None:
    thread = str(uuid4())
    url = f"{running.url.replace('http', 'ws')}/threads/{thread}/stream/events"
    async with connect(url) as socket:
        subscribed = await send(socket, 1, "subscription.subscribe", {"channels": ["messages", "lifecycle"]})
        assert (await send(socket, 2, "subscription.subscribe", {"channels": []}))[
            "error"
        ] == "invalid_argument"
        unknown = await send(socket, 3, "subscription.unsubscribe", {"subscription_id": "x"})
        assert unknown["error"] == "no_such_subscription"
        await socket.send("nonsense")
        assert json.loads(await socket.recv())["error"] == "invalid_argument"
        started = await send(socket, 4, "run.start", START)
        events = await read_until(map_frames(socket), "completed")
        assert {event["method"] for event in events} == {"messages", "lifecycle"}
        assert events[-1]["event_id"].split(":")[1] == started["result"]["run_id"]
        gone = {"subscription_id": subscribed["result"]["subscription_id"]}
        assert (await send(socket, 5, "subscription.unsubscribe", gone))["type"] == "success"


async def map_frames(socket: ClientConnection) -> AsyncIterator[Event]:
    async for frame in socket:
        yield json.loads(frame)


async def test_a_websocket_needs_a_credential_and_shows_nothing_of_another_tenant(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage(f"<reply>{ANSWER}</reply>")])
    async with running_service(database_url, scripted_models(model), auth=WITH_KEYS) as running:
        acme, other = [await key_of(running.service, name, "runs") for name in ("acme", "other")]
        thread = str(uuid4())
        sent = {"id": 1, "method": "run.start", "params": START}
        begun = await running.http.post(f"/threads/{thread}/commands", json=sent, headers=acme)
        assert begun.json()["type"] == "success"
        url = f"{running.url.replace('http', 'ws')}/threads/{thread}/stream/events"
        with pytest.raises(InvalidStatus, match="401"):
            await connect(url)
        async with connect(url, additional_headers=other) as socket:
            with pytest.raises(ConnectionClosedError, match="4404"):
                await socket.recv()
        async with connect(url, additional_headers=acme) as socket:
            await send(socket, 1, "subscription.subscribe", {"channels": ["lifecycle"]})
            await read_until(map_frames(socket), "completed")


async def test_a_websocket_is_refused_to_pages_of_other_sites(running: RunningService) -> None:
    url = f"{running.url.replace('http', 'ws')}/threads/{uuid4()}/stream/events"
    with pytest.raises(InvalidStatus, match="403"):
        await connect(url, additional_headers={"Origin": "https://evil.example"})
