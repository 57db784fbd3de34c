"""What the CRM notices of ``POST /v1/messages``."""

import re

from langchain_core.messages import AIMessage

from core.errors import ModelUnavailable
from core.settings import RunSettings
from nodes.react.state import Reflection
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, running_service

TICKET = {"title": "Exports fail", "description": "Error 500 on every export.", "severity": "high"}
DONE = Reflection(success=True, reasoning="It is sent.", task_complete=True, final_answer="I sent it.")


async def test_a_message_is_answered_and_its_session_continues(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Hello, Ana."), AIMessage("You are Ana.")])
    async with running_service(database_url, scripted_models(model)) as running:
        first = await running.http.post(
            "/v1/messages", json={"contact_id": CONTACT, "message": "Good morning"}
        )
        assert first.status_code == 200
        answer = first.json()
        assert answer == {
            "success": True,
            "response": "Hello, Ana.",
            "agent_used": "general",
            "category": "general",
            "confidence": answer["confidence"],
            "alternatives": answer["alternatives"],
            "session_id": first.headers["X-Thread-Id"],
            "handoff": {"recommended": False, "recorded": False, "team": "", "reason": ""},
            "path": "agent",
            "journey": None,
            "dispatched": answer["dispatched"],
            "attempts": [
                {
                    "agent": "general",
                    "outcome": "answered",
                    "reason": "",
                    "response": "Hello, Ana.",
                    "actions": [],
                    "called": None,
                    "citations": [],
                    "unsupported": [],
                }
            ],
            "ends_session": False,
            "interrupts": [],
            "reason_incomplete": None,
            "metadata": {
                "model": "scripted",
                "reasoning_model": "scripted",
                "fallback_model": None,
                "is_language_model": True,
                "why": "a test says it",
                "prompts": answer["metadata"]["prompts"],
                "memory": {"available": True, "degraded": [], "recorded": True},
                "context": answer["metadata"]["context"],
                "citations": [],
                "unsupported": [],
            },
        }
        assert re.fullmatch("[0-9a-f]{12}", answer["metadata"]["prompts"])
        more = {
            "contact_id": CONTACT,
            "message": "Who am I talking to?",
            "session_id": answer["session_id"],
            "channel_id": "wa",
        }
        second = await running.http.post("/v1/messages", json=more)
        assert second.json()["response"] == "You are Ana."
        assert second.json()["session_id"] == answer["session_id"]
        assert "Hello, Ana." in "\n".join(message.text for message in model.prompts[1])


async def test_an_effect_is_for_the_contact_of_the_message_and_for_no_other(database_url: str) -> None:
    written = (
        "create_engineering_ticket",
        {**TICKET, "contact_id": "f1a2", "context": {"contact_id": "f1a2"}},
    )
    model = ScriptedChatModel(replies=[calling("I report it.", written), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        body = {"contact_id": CONTACT, "message": "Exporting my contacts ends with Error 500."}
        answer = await running.http.post("/v1/messages", json=body)
        assert answer.json()["response"] == "I sent it."
        held = (await running.crm("/engineering-tickets"))["engineering_tickets"]
        made = [ticket["contact_id"] for ticket in held if ticket["title"] == TICKET["title"]]
        assert made == [CONTACT]


async def test_bad_messages_are_refused_with_the_field_named(database_url: str) -> None:
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        for body, field in (
            ({"contact_id": CONTACT}, "message"),
            ({"contact_id": CONTACT, "message": ""}, "message"),
            ({"contact_id": CONTACT, "message": "x" * 20_001}, "message"),
            ({"contact_id": CONTACT, "message": "Hi", "session_id": "a\nb"}, "session_id"),
            ({"contact_id": CONTACT, "message": "a\0b"}, "NUL"),
            ({"contact_id": CONTACT, "message": "Hi", "metadata": {"a": ["\0"]}}, "NUL"),
            ({"contact_id": CONTACT, "message": "Hi", "multitask_strategy": "x"}, "multitask_strategy"),
            ({"contact_id": CONTACT, "message": "Hi", "model": "openai:x"}, "model"),
        ):
            for accept in ("application/json", "text/event-stream"):
                refused = await running.http.post("/v1/messages", json=body, headers={"Accept": accept})
                assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
                assert field in refused.json()["message"]


async def test_an_unavailable_model_is_reported_and_the_session_continues_later(database_url: str) -> None:
    away = ModelUnavailable("the model is away", retry_after=15)
    model = ScriptedChatModel(replies=[away, AIMessage("Here.")])
    body = {"contact_id": CONTACT, "message": "Hi there!", "session_id": "away"}
    async with running_service(database_url, scripted_models(model)) as running:
        answered = (await running.http.post("/v1/messages", json=body)).json()
        assert (answered["path"], answered["reason_incomplete"]) == ("handoff", "agents_failed")
        assert "the model is away" in answered["attempts"][0]["reason"]
        assert answered["response"]
        assert (await running.http.post("/v1/messages", json=body)).json()["response"] == "Here."


async def test_an_unforeseen_error_is_logged_and_not_disclosed(database_url: str) -> None:
    model = ScriptedChatModel(replies=[RuntimeError("the secret of the house")])
    async with running_service(database_url, scripted_models(model)) as running:
        answer = await running.http.post("/v1/messages", json={"contact_id": CONTACT, "message": "Hi there!"})
        assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
        assert "secret" not in answer.text
        assert "X-Request-Id" in answer.json()["message"]


async def test_a_message_waits_for_its_turn_and_no_longer(database_url: str) -> None:
    async with running_service(
        database_url, scripted_models(ScriptedChatModel()), runs=RunSettings(queue_seconds=0.05)
    ) as running:
        arrivals = running.service.arrivals
        for _ in range(arrivals.limit):
            await arrivals.acquire("default")
        body = {"contact_id": CONTACT, "message": "Hi there!"}
        refused = await running.http.post("/v1/messages", json=body)
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_runs")
        assert refused.headers["Retry-After"] == "1"
