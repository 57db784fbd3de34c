"""What a streaming client notices: first tokens, errors in the stream, leaving early."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse
from langchain_core.messages import AIMessage

from core.errors import ModelUnavailable
from core.settings import RunSettings, ServerSettings
from nodes.react.state import Reflection
from service.cli.serve import open_server
from service.routes import sse
from service.routes.sse import format_event
from tests.support.audit import fetch_rows
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service, settings_for
from tests.support.waiting import until

SEARCH = ("search_knowledge_base", {"query": "error 500 export"})
ANSWER = 'Use "batches" of 10K — até 10 mil.'
DONE = Reflection(success=True, reasoning="The article says so.", task_complete=True, final_answer=ANSWER)
INPUT = {"task": "Help.", "contact_id": CONTACT}
# For an agent that works with tools, as the react graph does.
MESSAGE = {"message": "Exporting my contacts ends with Error 500.", "contact_id": CONTACT}

# A stream, whose answer can be asked for again.
KEYED = {"Idempotency-Key": "slow", "Accept": "text/event-stream"}


async def events_of(
    running: RunningService, path: str, body: dict[str, Any]
) -> AsyncIterator[ServerSentEvent]:
    accept = {"Accept": "text/event-stream"}
    async with aconnect_sse(running.http, "POST", path, json=body, headers=accept) as source:
        async for event in source.aiter_sse():
            yield event


async def open_unread(
    running: RunningService, path: str, body: dict[str, Any], headers: dict[str, str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a stream over a connection that takes next to nothing before it is read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.setblocking(False)
    address = httpx.URL(running.url)
    await asyncio.get_running_loop().sock_connect(connection, (address.host, address.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1_024)
    request = httpx.Request("POST", f"{running.url}{path}", json=body, headers=headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    writer.write(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + request.content)
    return reader, writer


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    """Read a chunked response to its end."""
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        received += await reader.read(65_536)
    return received


def token_of(event: ServerSentEvent) -> str:
    """The text of an event of /react/stream_events, when it is a token."""
    data = json.loads(event.data) if event.data else {}
    if data.get("event") != "on_chat_model_stream":
        return ""
    return str(data["data"]["chunk"]["content"])


async def stream_message(running: RunningService) -> list[tuple[str, Any]]:
    """The events of /v1/messages for one message: names and data."""
    return [
        (event.event, json.loads(event.data)) async for event in events_of(running, "/v1/messages", MESSAGE)
    ]


def show(events: list[tuple[str, Any]]) -> list[str]:
    """The states of a client that shows tokens, clears them on a reset, and shows nothing else."""
    shown: dict[str, str] = {}
    states = []
    for name, data in events:
        if name == "token":
            shown[data["message_id"]] = shown.get(data["message_id"], "") + data["text"]
        elif name == "reset":
            del shown[data["message_id"]]
        else:
            continue
        states.append("|".join(shown.values()))
    return states


@pytest.mark.parametrize("path", ["/react/stream_events", "/v1/messages"])
async def test_the_first_token_arrives_before_the_second_is_made(database_url: str, path: str) -> None:
    seen = asyncio.Event()
    model = ScriptedChatModel(replies=[AIMessage("<reply>One two three.")], before_token=seen.wait)
    body = {"input": INPUT} if path != "/v1/messages" else MESSAGE
    async with running_service(database_url, scripted_models(model)) as running:
        async for event in events_of(running, path, body):
            # The model waits for this before it makes its second token.
            if "One" in (token_of(event) or event.data):
                seen.set()
    assert seen.is_set()


async def test_messages_stream_named_events_and_the_answer_token_by_token(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I look it up.", SEARCH), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        body = {**MESSAGE, "metadata": {"message_id": 7}}
        events = [
            (event.event, json.loads(event.data)) async for event in events_of(running, "/v1/messages", body)
        ]
    names = [name for name, data in events if name != "token" and not (name == "thought" and data["text"])]
    assert names == ["start", "agent", "thought", "observation", "reflection", "citation", "done"]
    tokens = [data for name, data in events if name == "token"]
    assert {data["node"] for data in tokens} == {"reflect"}
    assert "".join(data["text"] for data in tokens) == ANSWER
    assert len(tokens) > 3
    thoughts = [data for name, data in events if name == "thought"]
    assert "".join(data["text"] for data in thoughts) == "I look it up."
    assert [data["actions"] for data in thoughts if data["actions"]] == [
        [{"tool": SEARCH[0], "args": SEARCH[1]}]
    ]
    assert len({data["id"] for data in thoughts}) == 1
    assert {data["id"] for data in thoughts}.isdisjoint(data["message_id"] for data in tokens)
    done = events[-1][1]
    assert (done["response"], done["success"]) == (ANSWER, True)
    assert done["session_id"] == events[0][1]["session_id"]


@pytest.mark.parametrize(
    "reply",
    ["<think>The limit is 10K.</think>Use batches.", "The limit is 10K. <reply>Use batches.</reply>"],
)
async def test_reasoning_before_an_answer_is_never_shown(database_url: str, reply: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage(reply)])
    async with running_service(database_url, scripted_models(model)) as running:
        events = await stream_message(running)
    assert show(events)[-1] == events[-1][1]["response"] == "Use batches."
    assert not any("limit" in state for state in show(events))
    assert "".join(data["text"] for name, data in events if name == "thought").strip() == "The limit is 10K."


async def test_an_answer_that_is_refused_is_cleared_before_the_next_is_shown(database_url: str) -> None:
    replies = ["<reply>Dear <customer> of ours", "<reply>Use batches."]
    model = ScriptedChatModel(replies=[AIMessage(reply) for reply in replies * 2])
    async with running_service(database_url, scripted_models(model)) as running:
        events = await stream_message(running)
        steps = [event async for event in running.react.astream_events(INPUT)]
    states = show(events)
    assert states[states.index("") - 1] == "Dear <customer> of ours"
    assert states[-1] == events[-1][1]["response"] == "Use batches."
    assert [name for name, _ in events if name in {"reset", "done"}] == ["reset", "done"]
    # The same by LangServe.
    answers = [step for step in steps if step["event"] == "on_chat_model_stream" and "answer" in step["tags"]]
    [reset] = [step for step in steps if step["event"] == "on_custom_event"]
    assert (reset["name"], reset["tags"][-1]) == ("reset", "reset")
    assert reset["data"] == {"message_id": answers[0]["data"]["chunk"].id}
    after = steps[steps.index(reset) :]
    assert "".join(step["data"]["chunk"].text for step in answers if step in after) == "Use batches."


async def test_an_error_within_a_stream_keeps_its_code_and_message(database_url: str) -> None:
    script = [calling("I look it up.", SEARCH), ModelUnavailable("the model is away", details={"model": "m"})]
    model = ScriptedChatModel(replies=[*script, *script, *script])
    async with running_service(database_url, scripted_models(model)) as running:
        *_, end = [event async for event in events_of(running, "/react/stream", {"input": INPUT})]
        assert end.event == "error"
        data = json.loads(end.data)
        assert (data["error"], data["status_code"], data["details"]) == (
            "model_unavailable",
            503,
            {"model": "m"},
        )
        assert data["message"] == "the model is away"

        with pytest.raises(httpx.HTTPStatusError, match="the model is away") as caught:
            async for _ in running.react.astream(INPUT):
                pass
        assert caught.value.response.status_code == 503


async def test_an_unforeseen_error_is_the_last_event_of_a_message_stream(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I look it up.", SEARCH), RuntimeError("a secret")])
    async with running_service(database_url, scripted_models(model)) as running:
        *_, end = [event async for event in events_of(running, "/v1/messages", MESSAGE)]
        assert (end.event, json.loads(end.data)["error"]) == ("error", "internal_error")
        assert "secret" not in end.data


async def test_a_stream_that_is_not_admitted_is_answered_with_the_status_of_its_error(
    database_url: str,
) -> None:
    gate = asyncio.Event()
    model = ScriptedChatModel(replies=[AIMessage("One two.")], before_token=gate.wait)
    async with running_service(database_url, scripted_models(model)) as running:
        config = {"configurable": {"thread_id": "busy", "multitask_strategy": "reject"}}
        body = {"input": INPUT, "config": config}
        first = asyncio.create_task(running.http.post("/react/invoke", json=body))
        await until(lambda: model.prompts)
        for endpoint in ("invoke", "stream", "stream_events"):
            refused = await running.http.post(f"/react/{endpoint}", json=body)
            assert (refused.status_code, refused.json()["error"]) == (409, "thread_busy")
            assert refused.headers["Retry-After"] == "1"
        gate.set()
        assert (await first).status_code == 200


async def test_a_message_stream_that_is_not_admitted_is_answered_with_the_status_of_its_error(
    database_url: str,
) -> None:
    gate = asyncio.Event()
    model = ScriptedChatModel(replies=[AIMessage("One two.")], before_token=gate.wait)
    runs = RunSettings(max_concurrent=1, queue_seconds=0)
    async with running_service(database_url, scripted_models(model), runs=runs) as running:
        body = {"message": "Good morning", "contact_id": CONTACT, "session_id": "busy"}
        first = asyncio.create_task(running.http.post("/v1/messages", json=body))
        await until(lambda: model.prompts)
        for more, status, code in (
            ({"multitask_strategy": "reject"}, 409, "thread_busy"),
            ({"session_id": None}, 429, "too_many_runs"),
        ):
            headers = {"Accept": "text/event-stream"}
            refused = await running.http.post("/v1/messages", json={**body, **more}, headers=headers)
            assert (refused.status_code, refused.json()["error"]) == (status, code)
            assert refused.headers["Retry-After"] == "1"
        gate.set()
        assert (await first).status_code == 200


@pytest.mark.parametrize("data", [{"n": 10**30, "text": "até"}, {"when": None, "text": "até"}])
def test_an_event_carries_any_number_that_a_model_may_write(data: dict[str, Any]) -> None:
    sent = format_event("thought", data).decode()
    assert json.loads(sent.partition("data: ")[2]) == data
    assert "até" in sent


async def test_a_second_run_on_a_thread_waits_or_replaces_the_first(database_url: str) -> None:
    gate = asyncio.Event()
    replies = [calling("I look it up.", SEARCH), AIMessage("Second reply."), AIMessage("Third reply.")]
    model = ScriptedChatModel(replies=replies, before_token=gate.wait)
    async with running_service(database_url, scripted_models(model)) as running:

        def ask(strategy: str) -> asyncio.Task[httpx.Response]:
            config = {"configurable": {"thread_id": "one", "multitask_strategy": strategy}}
            return asyncio.create_task(
                running.http.post("/react/invoke", json={"input": INPUT, "config": config})
            )

        first = ask("enqueue")
        await until(lambda: model.prompts)
        second = ask("interrupt")
        sql = "SELECT FROM runs.runs WHERE thread_id = %s"
        while len(await fetch_rows(running.service.pool, sql, "one")) < 2:  # noqa: ASYNC110 - it watches rows
            await asyncio.sleep(0.001)
        third = ask("enqueue")
        gate.set()
        replaced = await first
        assert (replaced.status_code, replaced.json()["error"]) == (409, "run_replaced")
        assert (await second).json()["output"]["final_answer"] == "Second reply."
        messages = (await third).json()["output"]["messages"]
        assert [message["content"] for message in messages][-3:] == ["Second reply.", "Help.", "Third reply."]


async def test_a_run_without_a_free_concurrency_slot_is_answered_with_429(database_url: str) -> None:
    gate = asyncio.Event()
    model = ScriptedChatModel(replies=[AIMessage("One two.")], before_token=gate.wait)
    runs = RunSettings(max_concurrent=1, queue_seconds=0)
    async with running_service(database_url, scripted_models(model), runs=runs) as running:
        first = asyncio.create_task(running.http.post("/react/invoke", json={"input": INPUT}))
        await until(lambda: model.prompts)
        refused = await running.http.post("/react/invoke", json={"input": INPUT})
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_runs")
        assert int(refused.headers["Retry-After"]) >= 1
        gate.set()
        assert (await first).status_code == 200


@pytest.mark.parametrize("path", ["/react/invoke", "/react/stream", "/react/stream_events", "/v1/messages"])
async def test_a_client_that_disconnects_stops_the_run_at_its_next_step(database_url: str, path: str) -> None:
    gate = asyncio.Event()
    model = ScriptedChatModel(
        replies=[calling("I look it up.", SEARCH), AIMessage("Never asked for.")], before_token=gate.wait
    )
    body: dict[str, Any] = {"input": INPUT, "config": {"configurable": {"thread_id": "left"}}}
    name, left_at = "react", "act"
    if path == "/v1/messages":
        body = {**MESSAGE, "session_id": "left"}
        name, left_at = "coordinator", "specialist"
    async with running_service(database_url, scripted_models(model)) as running:
        async with httpx.AsyncClient(base_url=running.url) as leaving:
            asking = asyncio.create_task(leaving.post(path, json=body))
            await until(lambda: model.prompts)
            asking.cancel()
            await asyncio.wait([asking])
        # The run is in the middle of a thought; once that is made, the step ends and so does the run.
        control = next(iter(running.service.runs._tasks.values()))
        await until(lambda: control.drain_requested)
        gate.set()
        await until(lambda: not running.service.runs.active)
        graph = running.service.graphs[name]
        state = await graph.aget_state({"configurable": {"thread_id": "left"}})
        assert state.next == (left_at,)
        if name == "react":
            assert state.values["messages"][-1].text == "I look it up."
        assert len(model.replies) == 1


@pytest.mark.parametrize("path", ["/react/stream_events", "/v1/messages"])
async def test_a_stream_that_nobody_reads_is_cut_while_its_run_goes_on_to_its_end(
    database_url: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_PENDING_BYTES", 8_192)
    monkeypatch.setattr(sse, "STALLED_SECONDS", 0.1)
    answer = " ".join(f"word{number}{'x' * 1_000}" for number in range(3_000))
    model = ScriptedChatModel(replies=[AIMessage(f"<reply>{answer}")])
    body = {"input": INPUT} if path != "/v1/messages" else MESSAGE
    async with running_service(database_url, scripted_models(model)) as running:
        reader, writer = await open_unread(running, path, body, KEYED)
        await until(lambda: model.prompts and running.service.runs.active == 0)
        received = await read_chunks(reader)
        writer.close()
        assert b"stream_cut" in received[-1_000:]
        assert b"word2999x" not in received
        assert b"/wait" in received[-1_000:]
        again = await running.http.post(path.replace("stream_events", "invoke"), json=body, headers=KEYED)
        assert answer in again.text
        assert len(model.prompts) == 1


async def test_a_run_whose_client_disconnects_while_it_waits_does_not_begin(database_url: str) -> None:
    gate = asyncio.Event()
    model = ScriptedChatModel(replies=[AIMessage("First reply.")], before_token=gate.wait)
    async with running_service(database_url, scripted_models(model)) as running:
        body = {"input": INPUT, "config": {"configurable": {"thread_id": "queue"}}}
        first = asyncio.create_task(running.http.post("/react/invoke", json=body))
        await until(lambda: model.prompts)
        async with httpx.AsyncClient(base_url=running.url) as leaving:
            waiting = asyncio.create_task(leaving.post("/react/invoke", json=body))
            await until(lambda: running.service.runs.active == 2)
            waiting.cancel()
            await asyncio.wait([waiting])
        second = list(running.service.runs._tasks.values())[1]
        await until(lambda: second.drain_requested)
        gate.set()
        assert (await first).status_code == 200
        await until(lambda: not running.service.runs.active)
        config: Any = {"configurable": {"thread_id": "queue"}}
        state = await running.service.graphs["react"].aget_state(config)
        assert state.next == ()
        assert [message.text for message in state.values["messages"]] == ["Help.", "First reply."]


async def test_a_run_that_exceeds_the_drain_time_is_cancelled_and_its_client_told(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("One two.")], before_token=asyncio.Event().wait)
    runs = RunSettings(finish_seconds=0, drain_seconds=0.05)
    async with running_service(database_url, scripted_models(model), runs=runs) as running:
        asking = [
            asyncio.create_task(running.http.post("/react/invoke", json={"input": INPUT})),
            asyncio.create_task(running.http.post("/react/stream", json={"input": INPUT})),
        ]
        model.replies.append(AIMessage("One two."))
        await until(lambda: len(model.prompts) == 2)
        await running.service.runs.drain()
        whole, streamed = await asyncio.gather(*asking)
        assert (whole.status_code, whole.json()["error"]) == (503, "run_stopped")
        assert '"error": "run_stopped"' in streamed.text
        refused = await running.http.post("/react/invoke", json={"input": INPUT})
        assert (refused.status_code, refused.json()["error"]) == (503, "run_stopped")


async def test_a_stopping_service_tells_clients_how_to_continue_their_runs(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("One two.")], before_token=asyncio.Event().wait)
    settings = settings_for(
        database_url, server=ServerSettings(port=0), runs=RunSettings(finish_seconds=0, drain_seconds=0.05)
    )
    async with httpx.AsyncClient(timeout=60) as http:
        async with open_server(settings, scripted_models(model)) as up:
            asking = asyncio.create_task(http.post(f"{up.url}/react/stream", json={"input": INPUT}))
            await until(lambda: model.prompts)
        streamed = await asking
    assert '"error": "run_stopped"' in streamed.text
    assert '"resume"' in streamed.text
