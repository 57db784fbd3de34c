"""A request that is sent again with its key is answered once, as the first one was."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage

from nodes.react.state import Reflection
from tests.support.audit import fetch_rows
from tests.support.general_agent import PARROT, service
from tests.support.scripted import ScriptedChatModel, calling
from tests.support.service import CONTACT, RunningService
from tests.support.waiting import until

DONE = Reflection(success=True, reasoning="Done.", task_complete=True, final_answer="Told.")
SENT = ("send_solution_to_customer", {"solution": "Use the batch export API."})


@pytest.fixture(scope="module")
def model() -> ScriptedChatModel:
    """What each test writes into."""
    return ScriptedChatModel()


@pytest.fixture(scope="module")
async def up(shared_database_url: str, model: ScriptedChatModel) -> AsyncIterator[RunningService]:
    """One service for these tests."""
    async with service(shared_database_url, model) as running:
        yield running


@pytest.fixture(autouse=True)
def unheld(model: ScriptedChatModel) -> None:
    """No test leaves its script to the next."""
    model.replies.clear()
    model.prompts.clear()
    model.before_token = None


async def send_task(
    up: RunningService, key: str, task: str = "Export fails.", *, verb: str = "invoke", **config: Any
) -> httpx.Response:
    body = {"input": {"task": task, "contact_id": CONTACT}, "config": {"configurable": config}}
    return await up.http.post(f"/react/{verb}", json=body, headers={"Idempotency-Key": key})


async def test_a_repeated_invoke_gets_the_first_answer_even_after_the_thread_continued(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies += [AIMessage("Use the batch API."), AIMessage("You are welcome.")]
    first = (await send_task(up, "invoke-1")).json()["output"]
    await send_task(up, "invoke-2", "Thanks!", thread_id=first["thread_id"])
    again = (await send_task(up, "invoke-1")).json()["output"]
    assert again == first
    assert len(model.prompts) == 2


async def test_a_repeated_stream_ends_with_the_first_answer(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies.append(AIMessage("Use the batch API."))
    first = await send_task(up, "stream-1", verb="stream")
    for verb in ("stream", "stream_events", "stream_log"):
        again = await send_task(up, "stream-1", verb=verb)
        assert again.status_code == 200
        assert again.headers["X-Thread-Id"] == first.headers["X-Thread-Id"]
        assert "Use the batch API." in again.text
        assert "event: error" not in again.text
    assert len(model.prompts) == 1


async def test_concurrent_requests_with_one_key_are_one_run(
    up: RunningService, model: ScriptedChatModel
) -> None:
    go = asyncio.Event()

    async def slowly() -> None:
        await go.wait()

    model.replies.append(AIMessage("Use the batch API."))
    model.before_token = slowly
    # The strategy is for other requests: this one does not stop its own first run.
    both = [
        asyncio.create_task(send_task(up, "joined", multitask_strategy=strategy))
        for strategy in ("interrupt", "interrupt", "reject")
    ]
    await until(lambda: up.service.runs.active == 3)
    go.set()
    answers = [answer.json()["output"] for answer in await asyncio.gather(*both)]
    assert answers[0] == answers[1] == answers[2]
    assert len(model.prompts) == 1


async def test_a_repeated_request_gets_its_answer_though_the_first_client_disconnected(
    up: RunningService, model: ScriptedChatModel
) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        begun.set()
        await go.wait()

    model.replies += [calling("I tell them.", SENT), DONE]
    model.before_token = slowly
    first = asyncio.create_task(send_task(up, "left"))
    await begun.wait()
    second = asyncio.create_task(send_task(up, "left"))
    await until(lambda: up.service.runs.active == 2)
    first.cancel()
    await asyncio.wait([first])
    go.set()
    assert (await second).json()["output"]["final_answer"] == "Told."
    effects = await fetch_rows(
        up.service.pool,
        "SELECT attempts FROM audit.effects WHERE thread_id = %s",
        (await second).headers["X-Thread-Id"],
    )
    assert [effect["attempts"] for effect in effects] == [1]


async def test_a_key_with_another_request_is_refused(up: RunningService, model: ScriptedChatModel) -> None:
    model.replies.append(AIMessage("Use the batch API."))
    assert (await send_task(up, "reused")).status_code == 200
    refused = await send_task(up, "reused", "Another task.")
    assert (refused.status_code, refused.json()["error"]) == (422, "idempotency_key_reused")


async def test_a_corrected_request_may_keep_its_key(up: RunningService, model: ScriptedChatModel) -> None:
    assert (await send_task(up, "mended", "")).status_code == 422
    model.replies.append(AIMessage("Use the batch API."))
    assert (await send_task(up, "mended")).status_code == 200


@pytest.mark.parametrize("key", ["é", "x" * 256])
async def test_a_malformed_key_is_refused(up: RunningService, key: str) -> None:
    headers = httpx.Headers({"Idempotency-Key": key}, encoding="utf-8")
    body = {"input": {"task": "Export fails.", "contact_id": CONTACT}}
    for path, given in (
        ("/react/invoke", body),
        ("/v1/messages", {"contact_id": CONTACT, "message": "Export fails."}),
    ):
        refused = await up.http.post(path, json=given, headers=headers)
        assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")


async def test_a_malformed_thread_id_is_refused_with_a_key_too(up: RunningService) -> None:
    assert (await send_task(up, "nul", thread_id="a\0b")).status_code == 422


async def test_a_batch_with_a_key_is_refused(up: RunningService) -> None:
    body = {"inputs": [{"task": "Export fails.", "contact_id": CONTACT}]}
    refused = await up.http.post("/react/batch", json=body, headers={"Idempotency-Key": "b"})
    assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")


async def test_a_run_that_broke_off_continues_and_its_effect_is_made_once(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies += [calling("I tell them.", SENT), RuntimeError("a bug"), DONE]
    before = len((await up.crm(f"/messages?contact_id={CONTACT}"))["messages"])
    assert (await send_task(up, "broken")).status_code == 500
    assert (await send_task(up, "broken")).json()["output"]["final_answer"] == "Told."
    after = (await up.crm(f"/messages?contact_id={CONTACT}"))["messages"]
    assert len(after) == before + 1


async def test_a_repeated_request_gets_the_pending_question_and_later_the_answer(
    up: RunningService, model: ScriptedChatModel
) -> None:
    refund = ("send_solution_to_customer", {"solution": "We will refund you."})
    model.replies += [calling("I refund.", refund), DONE]
    first = (await send_task(up, "waiting")).json()["output"]
    assert first["interrupts"]
    assert (await send_task(up, "waiting")).json()["output"]["interrupts"] == first["interrupts"]
    resume = {
        "input": {"resume": {"decision": "approve"}},
        "config": {"configurable": {"thread_id": first["thread_id"]}},
    }
    decided = (await up.http.post("/react/invoke", json=resume)).json()["output"]
    assert decided["final_answer"] == "Told."
    assert (await send_task(up, "waiting")).json()["output"] == decided


async def test_a_message_with_a_key_is_answered_once_and_its_key_is_taken(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies.append(AIMessage("A green one."))
    body = {"contact_id": CONTACT, "message": PARROT}
    headers = {"Idempotency-Key": "message-1"}
    first = await up.http.post("/v1/messages", json=body, headers=headers)
    assert first.status_code == 200, first.text
    again = await up.http.post("/v1/messages", json=body, headers=headers)
    assert again.json() == first.json()
    other = await up.http.post("/v1/messages", json={**body, "message": "Another."}, headers=headers)
    assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")


async def test_a_message_id_with_another_text_is_refused(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies.append(AIMessage("A green one."))
    body = {"contact_id": CONTACT, "message": PARROT, "message_id": "wa-1"}
    assert (await up.http.post("/v1/messages", json=body)).status_code == 200
    other = await up.http.post("/v1/messages", json={**body, "message": "Another."})
    assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")


async def test_a_key_is_forgotten_after_its_hours_and_with_its_thread(
    up: RunningService, model: ScriptedChatModel
) -> None:
    requests = up.service.requests
    first = await requests.claim("default", "k", {"a": 1}, thread_id="t")
    assert await requests.claim("default", "k", {"a": 1}) == type(first)(
        id=first.id, thread_id="t", repeated=True
    )
    assert not (await requests.claim("other", "k", {"a": 1})).repeated
    async with up.service.pool.connection() as connection:
        await connection.execute("UPDATE audit.request_keys SET expires_at = now() WHERE tenant = 'default'")
    fresh = await requests.claim("default", "k", {"b": 2})
    assert (fresh.repeated, fresh.id != first.id) == (False, True)
    await requests.delete_expired()
    assert (await requests.claim("default", "k", {"b": 2})).repeated

    model.replies += [AIMessage("One."), AIMessage("Two.")]
    thread = (await send_task(up, "erased")).json()["output"]["thread_id"]
    assert (await up.http.delete(f"/v1/threads/{thread}")).status_code == 204
    assert (await send_task(up, "erased")).json()["output"]["final_answer"] == "Two."
