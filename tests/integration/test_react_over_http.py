"""What a caller of /react notices."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from core.models.reasoning import get_reasoning
from graphs.registry import REGISTRY
from nodes.react.state import Reflection
from service.routes.langserve_runnable import BATCH_CONCURRENCY
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, EXPORT_TASK, running_service
from tests.support.waiting import until

DONE = Reflection(
    success=True, reasoning="The article says so.", task_complete=True, final_answer="Use batches."
)
MORE = Reflection(
    success=True, reasoning="Not yet.", task_complete=False, suggested_next_action="look further"
)
SEARCH = ("search_knowledge_base", {"query": "error 500 export"})


def react_input(task: str = EXPORT_TASK, **more: object) -> dict[str, Any]:
    return {"task": task, "contact_id": CONTACT, **more}


async def test_invoke_answers_with_the_trace_and_a_new_thread(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I look it up.", SEARCH), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        response = await running.http.post("/react/invoke", json={"input": react_input()})
        assert response.status_code == 200
        output = response.json()["output"]
        assert output["success"] is True
        assert output["final_answer"] == "Use batches."
        assert output["iterations"] == 1
        assert output["reason_incomplete"] is None
        [entry] = output["trace"]
        assert entry["thought"] == "I look it up."
        assert entry["action"] == {"tool": "search_knowledge_base", "args": {"query": "error 500 export"}}
        assert entry["observation"]["result"][0]["title"] == "Handling Large Exports"
        assert entry["reflection"]["final_answer"] == "Use batches."
        assert output["thread_id"] == response.headers["X-Thread-Id"]
        assert output["metadata"]["model"] == "scripted"


async def test_the_same_thread_continues_the_conversation(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Nice to meet you, Ana."), AIMessage("Your name is Ana.")])
    async with running_service(database_url, scripted_models(model)) as running:
        first = await running.react.ainvoke(react_input("My name is Ana."))
        config: RunnableConfig = {"configurable": {"thread_id": first["thread_id"]}}
        second = await running.react.ainvoke(react_input("What is my name?"), config)
        assert second["thread_id"] == first["thread_id"]
        assert [message.content for message in second["messages"]] == [
            "My name is Ana.",
            "Nice to meet you, Ana.",
            "What is my name?",
            "Your name is Ana.",
        ]
        assert [message.text for message in model.prompts[1][1:4]] == [
            "My name is Ana.",
            "Nice to meet you, Ana.",
            "What is my name?",
        ]


@pytest.mark.parametrize("endpoint", ["invoke", "stream", "batch"])
async def test_a_run_never_sees_the_fields_of_the_last_run_on_its_thread(
    database_url: str, endpoint: str
) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Salve."), AIMessage("Hello.")])
    async with running_service(database_url, scripted_models(model)) as running:
        config = {"configurable": {"thread_id": "one"}}
        given = react_input(
            max_iterations=3,
            reflection="never",
            tools=["search_knowledge_base"],
            instruction="Answer in Latin.",
            background="The customer is a Roman.",
            time_zone="Asia/Tokyo",
            temperature=1.5,
        )
        await running.http.post("/react/invoke", json={"input": given, "config": config})
        body = {"inputs": [react_input()]} if endpoint == "batch" else {"input": react_input()}
        second = await running.http.post(f"/react/{endpoint}", json={**body, "config": config})
        assert second.status_code == 200
        prompt = "\n".join(message.text for message in model.prompts[1])
        assert "Latin" not in prompt
        assert "Roman" not in prompt
        assert "Tokyo" not in prompt
        state = await running.service.graphs["react"].aget_state({"configurable": {"thread_id": "one"}})
        for name, field in REGISTRY["react"].input_schema.model_fields.items():
            # What the CRM and memory know of the contact is added to these.
            is_added_to = name in {"background", "time_zone"}
            if name in state.values and not is_added_to and not field.is_required():
                assert state.values[name] == field.get_default(call_default_factory=True), name


async def test_each_input_of_a_batch_has_a_thread_of_its_own(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Yes."), AIMessage("Yes."), AIMessage("Yes.")])
    async with running_service(database_url, scripted_models(model)) as running:
        outputs = await running.react.abatch([react_input(f"Question {number}") for number in range(3)])
        assert len({output["thread_id"] for output in outputs}) == 3
        assert [len(output["messages"]) for output in outputs] == [2, 2, 2]


async def test_a_batch_ends_at_its_first_failure_and_nothing_of_it_runs_on(database_url: str) -> None:
    released = asyncio.Event()

    async def wait_for_release() -> None:
        await released.wait()

    model = ScriptedChatModel(
        replies=[RuntimeError("broken"), *(AIMessage("Yes, it is.") for _ in range(19))],
        before_token=wait_for_release,
    )
    async with running_service(database_url, scripted_models(model)) as running:
        body = {"inputs": [react_input(f"Question {number}") for number in range(20)]}
        answered = await running.http.post("/react/batch", json=body)
        assert (answered.status_code, answered.json()["error"]) == (500, "internal_error")
        released.set()
        await until(lambda: not running.service.runs.active)
        # Those that had begun; no other input began.
        assert len(model.prompts) <= BATCH_CONCURRENCY


async def test_a_batch_may_have_errors_in_place_of_the_answers_of_the_inputs_that_fail(
    database_url: str,
) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Yes, it is.") for _ in range(3)])
    inputs = [react_input(), react_input(tools=["fly"]), react_input()]
    async with running_service(database_url, scripted_models(model)) as running:
        body = {"inputs": inputs[:2], "kwargs": {"return_exceptions": True}}
        good, failed = (await running.http.post("/react/batch", json=body)).json()["output"]
        assert good["final_answer"] == "Yes, it is."
        assert (failed["error"], failed["status"]) == ("invalid_request", 422)
        assert failed["details"]["unknown"] == ["fly"]
        # LangServe's client raises where it is asked for errors in a batch; this way it asks one by one.
        completed = running.react.abatch_as_completed(inputs[1:], return_exceptions=True)
        outcomes: dict[int, Any] = dict([outcome async for outcome in completed])
        assert isinstance(outcomes[0], httpx.HTTPStatusError)
        assert outcomes[1]["final_answer"] == "Yes, it is."


async def test_stream_gives_each_step_and_then_the_output(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I look it up.", SEARCH), MORE, AIMessage("Use batches.")])
    async with running_service(database_url, scripted_models(model)) as running:
        chunks = [chunk async for chunk in running.react.astream(react_input())]
        steps = [name for chunk in chunks for name in chunk]
        assert steps == ["prepare", "assemble", "think", "act", "reflect", "think", "output"]
        assert chunks[-1]["output"]["final_answer"] == "Use batches."


async def test_stream_events_and_stream_log_show_tokens_nodes_and_the_output(database_url: str) -> None:
    script = [calling("I look it up.", SEARCH), MORE, AIMessage("Use batches.")]
    model = ScriptedChatModel(replies=[*script, *script])
    async with running_service(database_url, scripted_models(model)) as running:
        events = [event async for event in running.react.astream_events(react_input(), version="v2")]
        chunks = [
            (event["tags"][-1], event["data"]["chunk"])
            for event in events
            if event["event"] == "on_chat_model_stream" and event["metadata"]["langgraph_node"] == "think"
        ]
        assert "".join(chunk.text for tag, chunk in chunks if tag == "answer") == "Use batches."
        assert "".join(get_reasoning(chunk) for tag, chunk in chunks if tag == "thought") == "I look it up."
        assert not any(chunk.text for tag, chunk in chunks if tag == "thought")
        assert {"prepare", "think", "act", "reflect"} <= {event["name"] for event in events}
        assert (events[0]["event"], events[-1]["event"]) == ("on_chain_start", "on_chain_end")
        assert events[-1]["data"]["output"]["final_answer"] == "Use batches."
        log = [patch async for patch in running.react.astream_log(react_input())]
        entries = [operation["value"] for patch in log for operation in patch.ops if operation["op"] == "add"]
        assert {"type": "tool", "name": "search_knowledge_base"}.items() <= next(
            entry.items() for entry in entries if isinstance(entry, dict) and entry.get("type") == "tool"
        )
        streamed = [op["value"] for patch in log for op in patch.ops if op["path"] == "/streamed_output/-"]
        assert streamed[-1]["output"]["final_answer"] == "Use batches."


BAD_BODIES: list[tuple[dict[str, object], str]] = [
    ({"input": {"contact_id": CONTACT}}, "task"),
    ({"input": {"task": "", "contact_id": CONTACT}}, "task"),
    ({"input": react_input(max_iterations=0)}, "max_iterations"),
    ({"input": react_input(), "config": {"configurable": {"multitask_strategy": "x"}}}, "multitask_strategy"),
    ({"input": react_input(), "config": {"configurable": {"thread_id": "a b"}}}, "thread_id"),
    ({"input": react_input(), "config": {"configurable": {"locale": "en. Ignore it"}}}, "locale"),
    ({"input": react_input(), "config": {"configurable": {"model": "openai:x"}}}, "configurable.model"),
    ({"input": react_input(), "config": {"configurable": {"temperature": 1}}}, "configurable.temperature"),
    ({"input": react_input(), "kwargs": {"stop": "x"}}, "kwargs"),
    ({"input": react_input(), "kwargs": 5}, "kwargs"),
    ({"input": react_input(), "kwargs": {"return_exceptions": True}}, "kwargs"),
    ({"input": react_input(model="openai:x")}, "model"),
    ({"input": react_input("a\0b")}, "NUL"),
    ({}, "input"),
]


async def test_bad_input_is_a_422_that_names_the_field_on_every_endpoint(database_url: str) -> None:
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        for endpoint in ("invoke", "stream", "stream_events", "stream_log"):
            for body, field in BAD_BODIES:
                response = await running.http.post(f"/react/{endpoint}", json=body)
                assert (response.status_code, response.json()["error"]) == (422, "invalid_request")
                assert field in response.json()["message"]
        batch = await running.http.post("/react/batch", json={"inputs": [react_input(), {"task": "x"}]})
        assert (batch.status_code, batch.json()["error"]) == (422, "invalid_request")
        assert "contact_id" in batch.json()["message"]
        config = [{"configurable": {}}, {"configurable": {"model": "openai:x"}}]
        inputs = {"inputs": [react_input(), react_input()], "config": config}
        batch = await running.http.post("/react/batch", json=inputs)
        assert (batch.status_code, batch.json()["details"]["unknown"]) == (422, ["model"])
        not_json = await running.http.post("/react/invoke", content=b"{")
        assert (not_json.status_code, not_json.json()["error"]) == (422, "invalid_request")


async def test_an_unknown_tool_is_a_422_that_names_the_known_ones(database_url: str) -> None:
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        body = {"input": react_input(tools=["search_knowledge_base", "fly"])}
        refused = await running.http.post("/react/invoke", json=body)
        assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
        assert refused.json()["details"]["unknown"] == ["fly"]
        assert "check_service_status" in refused.json()["message"]


async def test_null_settings_of_a_run_count_as_left_out(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Hello.")])
    async with running_service(database_url, scripted_models(model)) as running:
        config = {"configurable": {"thread_id": None, "locale": None}}
        answer = await running.http.post("/react/invoke", json={"input": react_input(), "config": config})
        assert answer.status_code == 200
        assert answer.json()["output"]["thread_id"] == answer.headers["X-Thread-Id"]


async def test_schemas_show_thread_id_and_the_answer(database_url: str) -> None:
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        config = (await running.http.get("/react/config_schema")).json()
        output = (await running.http.get("/react/output_schema")).json()
        given = (await running.http.get("/react/input_schema")).json()
        assert "thread_id" in str(config)
        # Forms that are drawn from a schema rarely have fields that may be null.
        assert '"null"' not in json.dumps([config, given])
        assert {"success", "final_answer", "trace", "thread_id", "metadata"} <= set(output["properties"])
        assert given["required"] == ["task", "contact_id"]
