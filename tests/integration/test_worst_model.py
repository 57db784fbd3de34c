"""Whatever the model writes, no customer reads what is not for them, and every run ends honestly."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from core.customer_text import find_customer_text_fault
from core.memory import Scope
from graphs.registry import REGISTRY, STEP_GRAPHS
from tests.support.scripted import scripted_models
from tests.support.service import CONTACT, RunningService, running_service
from tests.support.worst_model import WAYS, Way, WorstModel

# For agents of each pattern, for two agents at once, and for nobody in particular.
MESSAGES = {
    "react": "Exporting my contacts ends with Error 500.",
    "answer": "Hi there!",
    "critique_refine": "Write a promotional e-mail for our autumn sale.",
    "planning_monitor": "Your support ignored me for a week, I want to complain.",
    "two agents": "Exporting my contacts ends with Error 500. Also, our last invoice shows the wrong tax "
    "number.",
    "unclear": "Please do the thing with the colour.",
}
SEND = {
    "id": "send",
    "type": "api_call",
    "method": "POST",
    "url": "crm:/messages",
    "body": {
        "contact_id": CONTACT,
        "text": "{{ steps.write.output.final_answer }}",
        "from_me": True,
        "source": "test",
    },
}
WORKFLOW = {
    "name": "answer_and_send",
    "steps": [
        {
            "id": "write",
            "type": "agent",
            "graph": "react",
            "input": {"task": "Write to the customer.", "contact_id": CONTACT, "tools": ["get_contact"]},
        },
        {
            "id": "is_good",
            "type": "conditional",
            "condition": {"type": "expression", "expression": "steps.write.output.success"},
            "then": [SEND],
        },
    ],
}


@pytest.fixture(scope="module")
def model() -> WorstModel:
    return WorstModel()


@pytest.fixture(scope="module")
async def running(shared_database_url: str, model: WorstModel) -> AsyncIterator[RunningService]:
    async with running_service(shared_database_url, scripted_models(model)) as opened:
        yield opened


async def invoke(running: RunningService, graph: str, given: Any, thread: str = "") -> dict[str, Any]:
    config = {"configurable": {"thread_id": thread or str(uuid4())}}
    answered = await running.http.post(f"/{graph}/invoke", json={"input": given, "config": config})
    assert answered.status_code == 200, (graph, answered.text)
    output: dict[str, Any] = answered.json()["output"]
    return output


async def say(running: RunningService, message: str) -> dict[str, Any]:
    body = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": message}
    answered = await running.http.post("/v1/messages", json=body)
    assert answered.status_code == 200, answered.text
    answer: dict[str, Any] = answered.json()
    return answer


async def list_sent(running: RunningService) -> list[str]:
    messages = (await running.crm(f"/messages?contact_id={CONTACT}&limit=200"))["messages"]
    return [message["text"] for message in messages if message["from_me"]]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, model: WorstModel) -> Way:
    model.way[:] = [request.param]
    way: Way = request.param
    return way


async def test_a_message_is_answered_safely_or_handed_over(running: RunningService, way: Way) -> None:
    sent = await list_sent(running)
    before = len((await running.crm(f"/contacts/{CONTACT}/handoffs?limit=100"))["handoffs"])
    # The patterns that plan and judge take many calls; how they end depends on the last one, as elsewhere.
    kinds = list(MESSAGES) if way == "operator" else ["react", "unclear"]
    answers = await asyncio.gather(*(say(running, MESSAGES[kind]) for kind in kinds))
    for kind, answer in zip(kinds, answers, strict=True):
        assert find_customer_text_fault(answer["response"]) == "", (kind, answer["response"])
        ended = (
            answer["success"],
            answer["path"],
            answer["handoff"]["recorded"],
            answer["reason_incomplete"],
        )
        if kind == "unclear":
            assert ended == (True, "clarification", False, None)
        else:
            assert ended == (False, "handoff", True, "agents_failed"), kind
    made = len((await running.crm(f"/contacts/{CONTACT}/handoffs?limit=100"))["handoffs"]) - before
    assert made == len(kinds) - 1
    assert await list_sent(running) == sent
    # Memory keeps what the customer said and was asked, and nothing that the model made.
    scope = Scope("default", CONTACT)
    kept = await running.service.memory.recent(scope)
    assert {message.text for message in kept if message.role == "agent"} == {answers[-1]["response"]}
    assert all(message.role == "customer" or not find_customer_text_fault(message.text) for message in kept)
    assert await running.service.memory.recall(scope, "What is noted?", agent="agent", limit=20) == []


@pytest.mark.parametrize("way", ["operator", "cut", "fields"], indirect=True)
async def test_an_onboarding_says_only_what_customers_may_read(running: RunningService, way: Way) -> None:
    thread = str(uuid4())
    output = await invoke(
        running, "onboarding", {"contact_id": CONTACT, "message": "Hello! How do exports work?"}, thread
    )
    for reply in ("We want to win back customers.", "How do I connect Shopify?", "later"):
        if output["interrupts"]:
            output = await invoke(running, "onboarding", {"resume": reply}, thread)
    told = [message["content"] for message in output["messages"] if message["type"] == "ai"]
    told += [pending["value"]["text"] for pending in output["interrupts"]]
    assert len(told) >= 3
    assert {text: fault for text in told if (fault := find_customer_text_fault(text))} == {}


@pytest.mark.parametrize("way", ["operator"], indirect=True)
async def test_no_graph_and_no_workflow_sends_what_nobody_may_read(running: RunningService, way: Way) -> None:
    sent = await list_sent(running)
    deal = await running.crm(f"/contacts/{CONTACT}/opportunities/OPP-3001")
    runs = [(name, dict(spec.example)) for name, spec in REGISTRY.items() if name in STEP_GRAPHS]
    runs += [("workflow", dict(REGISTRY["workflow"].example)), ("workflow", {"definition": WORKFLOW})]
    outputs = [await invoke(running, name, given) for name, given in runs]
    assert await list_sent(running) == sent
    for (name, _), output in zip(runs, outputs, strict=True):
        ended = output.get("success", output.get("completed", output.get("status") == "succeeded"))
        reason = output.get("reason") or output.get("reason_incomplete") or output.get("error")
        assert ended or reason or output["interrupts"], name
    written = [output["output"] for (name, _), output in zip(runs, outputs, strict=True)
               if name == "critique_refine" and output["success"]]  # fmt: skip
    assert written == []
    after = await running.crm(f"/contacts/{CONTACT}/opportunities/OPP-3001")
    for field in ("proposal", "terms"):
        assert after[field] == deal[field] or not find_customer_text_fault(after[field])
