"""Runs over the Agent Server API, with LangGraph's own client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError

from core.settings import QueueSettings
from nodes.react.state import Reflection
from tests.support.general_agent import service
from tests.support.scripted import ScriptedChatModel, calling
from tests.support.service import CONTACT, RunningService

TASK = {"task": "Export fails.", "contact_id": CONTACT}
SEND = ("send_solution_to_customer", {"solution": "We will refund the last invoice."})
TOLD = Reflection(success=True, reasoning="Done.", task_complete=True, final_answer="Told.")


@pytest.fixture
def model() -> ScriptedChatModel:
    return ScriptedChatModel()


@pytest.fixture
async def up(database_url: str, model: ScriptedChatModel) -> AsyncIterator[RunningService]:
    async with service(database_url, model, queue=QueueSettings()) as running:
        yield running


@pytest.fixture
async def client(up: RunningService) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=up.url) as opened:
        yield opened


async def test_a_run_in_the_background_is_waited_for_and_leaves_its_thread_readable(
    client: LangGraphClient, model: ScriptedChatModel
) -> None:
    model.replies.append(AIMessage("Use the batch API."))
    thread = await client.threads.create(metadata={"ticket": "T-1"})
    assert (thread["status"], thread["values"]) == ("idle", None)
    run = await client.runs.create(thread["thread_id"], "react", input=TASK, metadata={"try": 1})
    values: Any = await client.runs.join(thread["thread_id"], run["run_id"])
    assert values["final_answer"] == "Use the batch API."
    ended = await client.runs.get(thread["thread_id"], run["run_id"])
    assert (ended["status"], ended["metadata"]) == ("success", {"try": 1})
    assert [each["run_id"] for each in await client.runs.list(thread["thread_id"])] == [run["run_id"]]
    after = await client.threads.get(thread["thread_id"])
    assert after["status"] == "idle"
    assert after["values"]
    assert after["values"]["final_answer"] == "Use the batch API."
    assert after["metadata"] == {"ticket": "T-1", "graph_id": "react", "assistant_id": run["assistant_id"]}
    [found] = await client.threads.search(
        metadata={"ticket": "T-1"}, extract={"answer": "values.messages[-1].content"}
    )
    assert found["extracted"] == {"answer": "Use the batch API."}
    await client.runs.delete(thread["thread_id"], run["run_id"])
    with pytest.raises(NotFoundError):
        await client.runs.get(thread["thread_id"], run["run_id"])
    await client.threads.delete(thread["thread_id"])
    with pytest.raises(NotFoundError):
        await client.threads.get(thread["thread_id"])


async def test_a_run_that_asks_a_person_is_answered_with_a_command(
    client: LangGraphClient, model: ScriptedChatModel
) -> None:
    model.replies += [calling("I tell them.", SEND), TOLD]
    thread_id = str(uuid4())
    asked: Any = await client.runs.wait(thread_id, "react", input=TASK, if_not_exists="create")

    [question] = asked["__interrupt__"]
    assert question["value"]["tool"] == SEND[0]
    waiting = await client.threads.get(thread_id)
    assert waiting["status"] == "interrupted"
    assert [each["id"] for each in next(iter(waiting["interrupts"].values()))] == [question["id"]]
    answer: Any = await client.runs.wait(
        thread_id, "react", command={"resume": {question["id"]: {"decision": "approve"}}}
    )
    assert answer["final_answer"] == "Told."


async def test_a_run_in_progress_is_refused_cancelled_and_replaced(
    client: LangGraphClient, model: ScriptedChatModel
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        started.set()
        await go.wait()

    model.before_token = slowly
    model.replies += [calling("I tell them.", SEND), AIMessage("The second.")]
    thread = await client.threads.create()
    thread_id = thread["thread_id"]
    first = await client.runs.create(thread_id, "react", input=TASK)
    await started.wait()
    assert (await client.threads.get(thread_id))["status"] == "busy"
    with pytest.raises(ConflictError):
        await client.runs.create(thread_id, "react", input=TASK, multitask_strategy="reject")
    second = asyncio.create_task(
        client.runs.wait(thread_id, "react", input=TASK, multitask_strategy="interrupt")
    )
    while not (await client.runs.get(thread_id, first["run_id"])).get("cancel_reason"):  # noqa: ASYNC110 - a row
        await asyncio.sleep(0.01)
    model.before_token = None
    go.set()
    answer: Any = await second
    assert answer["final_answer"] == "The second."
    assert (await client.runs.get(thread_id, first["run_id"]))["status"] == "interrupted"
    with pytest.raises(NotFoundError):
        await client.runs.cancel(thread_id, first["run_id"])


async def test_what_has_no_effect_is_refused(client: LangGraphClient, model: ScriptedChatModel) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    with pytest.raises(NotFoundError):
        await client.runs.create(str(uuid4()), "react", input=TASK)
    with pytest.raises(NotFoundError):
        await client.runs.create(thread_id, str(uuid4()), input=TASK)
    for body in (
        {"context": {"flavour": "mint"}},
        {"input": {**TASK, "flavour": "mint"}},
        {"context": {"tenant": "other"}},
        {"feedback_keys": ["thumbs"]},
        {"stream_mode": "everything"},
        {"input": {**TASK, "instructions": "Be brief."}},
        {"interrupt_before": ["nowhere"]},
        {"durability": "exit"},
    ):
        with pytest.raises(UnprocessableEntityError):
            await client.http.post(
                f"/threads/{thread_id}/runs", json={"assistant_id": "react", "input": TASK, **body}
            )
    with pytest.raises(BadRequestError):
        await client.runs.create(
            thread_id,
            "react",
            input=TASK,
            context={"locale": "pt-BR"},
            config={"configurable": {"locale": "en"}},
        )
    with pytest.raises(UnprocessableEntityError):
        await client.runs.create(thread_id, "no-such-graph", input=TASK)
    with pytest.raises(UnprocessableEntityError):
        await client.runs.create("not-a-uuid", "react", input=TASK)
    # Keys that only LangGraph itself sets are left out.
    model.replies.append(AIMessage("Fine."))
    internal: Any = {"configurable": {"__pregel_task_id": "1", "langgraph_auth_user": "eve"}}
    answer: Any = await client.runs.wait(thread_id, "react", input=TASK, config=internal)
    assert answer["final_answer"] == "Fine."
