"""Whatever hangs, the customer is answered in time: by an agent, or by the promise of a person."""

import asyncio
from typing import Any

from langchain_core.messages import AIMessage

from core.settings import CrmSettings, MessageSettings
from tests.support.crm_faults import Silence, scripted_crm
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

GREETING = "Hi there!"
GREETINGS = ("Hello!", "Hello again!", "Hello once more!", "Hello for long!")
SOON = MessageSettings(deadline_seconds=2, reserve_seconds=1)


async def say(running: RunningService, message: str, **headers: str) -> dict[str, Any]:
    body = {"contact_id": CONTACT, "message": message}
    answered = await running.http.post("/v1/messages", json=body, headers=headers)
    assert answered.status_code == 200, answered.text
    answer: dict[str, Any] = answered.json()
    return answer


def hanging_model() -> ScriptedChatModel:
    """A model whose replies never come to their end."""
    return ScriptedChatModel(replies=[AIMessage("One two.")] * 20, before_token=asyncio.Event().wait)


async def test_a_person_takes_over_when_the_model_hangs(database_url: str) -> None:
    async with running_service(database_url, scripted_models(hanging_model()), messages=SOON) as running:
        answer = await say(running, GREETING)
        assert (answer["path"], answer["reason_incomplete"]) == ("handoff", "agents_failed")
        assert [each["outcome"] for each in answer["attempts"]] == ["timed_out"]
        assert answer["handoff"]["recorded"] is True
        [handoff] = (await running.crm(f"/contacts/{CONTACT}/handoffs"))["handoffs"]
        assert handoff["team"] == answer["handoff"]["team"]
        assert "support team" in answer["response"]


async def test_a_stream_ends_with_the_promise_of_a_person_when_the_model_hangs(database_url: str) -> None:
    async with running_service(database_url, scripted_models(hanging_model()), messages=SOON) as running:
        body = {"contact_id": CONTACT, "message": GREETING}
        streamed = await running.http.post("/v1/messages", json=body, headers={"Accept": "text/event-stream"})
        assert "event: done" in streamed.text
        assert '"path":"handoff"' in streamed.text


async def test_the_customer_is_answered_while_the_crm_hangs_and_health_tells(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage(text) for text in GREETINGS])
    async with scripted_crm(*[Silence()] * 50) as crm:
        groups = {"crm": CrmSettings(api_base=crm.url, timeout_seconds=0.2, max_attempts=1)}
        async with running_service(database_url, scripted_models(model), **groups) as running:
            assert (await running.http.get("/health")).json()["circuits"] == {"crm": "closed"}
            for response in GREETINGS[:-1]:
                assert (await say(running, GREETING))["response"] == response
            requests = len(crm.requests)
            assert (await say(running, GREETING))["response"] == GREETINGS[-1]
            assert len(crm.requests) == requests
            health = (await running.http.get("/health")).json()
            assert (health["status"], health["circuits"]["crm"]) == ("degraded", "open")
            metrics = (await running.http.get("/metrics")).text
            assert 'ventros_circuit_open{name="crm"} 1.0' in metrics
            assert 'ventros_circuit_open{name="scripted"} 0.0' in metrics


async def test_nobody_is_promised_a_person_when_the_crm_hangs_too(database_url: str) -> None:
    async with scripted_crm(*[Silence()] * 50) as crm:
        groups: dict[str, Any] = {"crm": CrmSettings(api_base=crm.url), "messages": SOON}
        async with running_service(database_url, scripted_models(hanging_model()), **groups) as running:
            answer = await say(running, GREETING)
            assert (answer["path"], answer["handoff"]["recorded"]) == ("handoff", False)
            assert "write again" in answer["response"]
