"""An answer that states what no source holds, where the settings have a person decide on it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from httpx_sse import aconnect_sse

from core.settings import ApprovalSettings
from nodes.react.state import Reflection
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

# An example message of the agent, of which the router is sure.
WHERE = "Where is my order? It should have arrived on Monday."
LOOK = calling("I look.", ("get_orders", {}))
TRUE = "ORD-7001 is delayed."
INVENTED = "ORD-7001 is delayed; we credit you {amount} for it."


def answer_with(text: str) -> list[Any]:
    done = Reflection(success=True, reasoning="Found.", task_complete=True, final_answer=text)
    return [LOOK.model_copy(), done]


@pytest.fixture(scope="module")
async def service(shared_database_url: str) -> AsyncIterator[tuple[RunningService, ScriptedChatModel]]:
    model = ScriptedChatModel()
    settings = ApprovalSettings(unsupported="review")
    async with running_service(shared_database_url, scripted_models(model), approvals=settings) as running:
        yield running, model


@pytest.fixture
def running(service: tuple[RunningService, ScriptedChatModel]) -> RunningService:
    return service[0]


@pytest.fixture
def model(service: tuple[RunningService, ScriptedChatModel]) -> ScriptedChatModel:
    return service[1]


async def ask(running: RunningService) -> dict[str, Any]:
    body = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": WHERE}
    answer: dict[str, Any] = (await running.http.post("/v1/messages", json=body)).raise_for_status().json()
    return answer


async def decide(running: RunningService, answer: dict[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    """Return the output after a decision on the answer, found at /v1/approvals."""
    listed = (await running.http.get("/v1/approvals")).json()["approvals"]
    [approval] = [each for each in listed if each["thread_id"] == answer["session_id"]]
    response = await running.http.post(f"/v1/approvals/{approval['id']}", json=decision)
    assert response.status_code == 200, response.text
    output: dict[str, Any] = response.json()["output"]
    return output


async def test_an_invented_amount_waits_with_its_sources_and_is_said_once_approved(
    running: RunningService, model: ScriptedChatModel
) -> None:
    invented = INVENTED.format(amount="$49.90")
    model.replies = answer_with(invented)
    answer = await ask(running)
    assert (answer["success"], answer["response"]) == (False, "")
    [order] = answer["metadata"]["citations"]
    assert (order["kind"], order["id"]) == ("order", "ORD-7001")
    assert answer["metadata"]["unsupported"] == ["$49.90"]
    [pending] = answer["interrupts"]
    assert pending["value"] == {
        "type": "answer_approval",
        "answer": invented,
        "unsupported": ["$49.90"],
        "citations": [order],
        "reason": "no source of the run holds: $49.90",
        "agent": "order_status",
        "contact_id": CONTACT,
    }

    output = await decide(running, answer, {"decision": "approve"})
    assert (output["success"], output["response"], output["interrupts"]) == (True, invented, [])
    assert output["messages"][-1]["content"] == invented
    assert (output["citations"], output["unsupported"]) == ([order], ["$49.90"])


async def test_the_customer_reads_what_a_person_wrote_instead(
    running: RunningService, model: ScriptedChatModel
) -> None:
    # Memory holds what was approved before, so each test invents another amount.
    model.replies = answer_with(INVENTED.format(amount="$59.90"))
    answer = await ask(running)
    [pending] = answer["interrupts"]
    thread = {"configurable": {"thread_id": answer["session_id"]}}
    for fault in ({"decision": "edit"}, {"decision": "edit", "arguments": {"text": "Dear {{name}},"}}):
        body = {"input": {"resume": {pending["id"]: fault}}, "config": thread}
        assert (await running.http.post("/coordinator/invoke", json=body)).status_code == 422
    output = await decide(running, answer, {"decision": "edit", "arguments": {"text": TRUE}})
    assert (output["success"], output["response"], output["unsupported"]) == (True, TRUE, [])
    assert output["messages"][-1]["content"] == TRUE


async def test_a_rejected_answer_is_handed_over_once(
    running: RunningService, model: ScriptedChatModel
) -> None:
    model.replies = answer_with(INVENTED.format(amount="$69.90"))
    before = len((await running.crm(f"/contacts/{CONTACT}/handoffs"))["handoffs"])
    answer = await ask(running)
    output = await decide(running, answer, {"decision": "reject", "reason": "We credit nothing."})
    assert (output["success"], output["path"], output["reason"]) == (False, "handoff", "answer_rejected")
    assert "69.90" not in output["response"]
    assert output["handoff"]["recorded"] is True
    assert (output["citations"], output["unsupported"]) == ([], [])
    handoffs = (await running.crm(f"/contacts/{CONTACT}/handoffs"))["handoffs"]
    assert len(handoffs) == before + 1
    assert handoffs[0]["reason"] == "a person rejected the answer: We credit nothing."


async def test_no_word_of_an_answer_is_streamed_before_it_is_known_to_be_supported(
    running: RunningService, model: ScriptedChatModel
) -> None:
    async def stream() -> list[tuple[str, Any]]:
        body = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": WHERE}
        headers = {"Accept": "text/event-stream"}
        async with aconnect_sse(running.http, "POST", "/v1/messages", json=body, headers=headers) as source:
            return [(event.event, event.json()) async for event in source.aiter_sse()]

    model.replies = answer_with(INVENTED.format(amount="$79.90"))
    events = await stream()
    names = [name for name, _ in events]
    assert "token" not in names
    assert "citation" not in names
    assert names[-2:] == ["interrupt", "done"]

    model.replies = answer_with(TRUE)
    events = await stream()
    assert [name for name, _ in events if name == "token"] == []
    assert events[-2][0] == "citation"
    assert events[-2][1]["id"] == "ORD-7001"
    done = events[-1][1]
    assert done["response"] == TRUE
    assert done["metadata"]["citations"] == [events[-2][1]]
