"""What the CRM notices of ``POST /v1/messages``."""

from langchain_core.messages import AIMessage

from core.errors import ModelUnavailable
from nodes.react.state import Reflection
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, running_service

SENT = ("send_solution_to_customer", {"solution": "Use the batch export API."})
DONE = Reflection(success=True, reasoning="It is sent.", task_complete=True, final_answer="I sent it.")


async def test_a_message_is_answered_and_the_session_goes_on(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Hello, Ana."), AIMessage("You are Ana.")])
    async with running_service(database_url, scripted_models(model)) as running:
        first = await running.http.post("/v1/messages", json={"contact_id": CONTACT, "message": "I am Ana."})
        assert first.status_code == 200
        answer = first.json()
        assert answer == {
            "success": True,
            "response": "Hello, Ana.",
            "agent_used": "react",
            "category": "support",
            "confidence": 1.0,
            "session_id": first.headers["X-Thread-Id"],
            "interrupts": [],
            "reason_incomplete": None,
            "metadata": {
                "model": "scripted",
                "reasoning_model": "scripted",
                "fallback_model": None,
                "is_language_model": False,
                "why": "a test says it",
            },
        }
        more = {
            "contact_id": CONTACT,
            "message": "Who am I?",
            "session_id": answer["session_id"],
            "channel_id": "wa",
        }
        second = await running.http.post("/v1/messages", json=more)
        assert second.json()["response"] == "You are Ana."
        assert second.json()["session_id"] == answer["session_id"]
        assert "I am Ana." in [message.text for message in model.asked[1]]


async def test_a_solution_is_sent_to_the_contact_of_the_message_and_to_no_other(database_url: str) -> None:
    written = (SENT[0], {**SENT[1], "contact_id": "f1a2", "context": {"contact_id": "f1a2"}})
    model = ScriptedChatModel(replies=[calling("I send it.", written), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        answer = await running.http.post("/v1/messages", json={"contact_id": CONTACT, "message": "Help."})
        assert answer.json()["response"] == "I sent it."
        held = (await running.crm(f"/messages?contact_id={CONTACT}"))["messages"]
        sent = [message for message in held if message["source"] == "ventros-agents"]
        assert [(message["text"], message["contact_id"]) for message in sent] == [
            (SENT[1]["solution"], CONTACT)
        ]


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
        ):
            for accept in ("application/json", "text/event-stream"):
                refused = await running.http.post("/v1/messages", json=body, headers={"Accept": accept})
                assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
                assert field in refused.json()["message"]


async def test_a_model_that_is_away_is_a_503_and_the_session_goes_on_later(database_url: str) -> None:
    model = ScriptedChatModel(
        replies=[ModelUnavailable("the model is away", retry_after=15), AIMessage("Here.")]
    )
    body = {"contact_id": CONTACT, "message": "Hello?", "session_id": "away"}
    async with running_service(database_url, scripted_models(model)) as running:
        away = await running.http.post("/v1/messages", json=body)
        assert (away.status_code, away.headers["Retry-After"]) == (503, "15")
        assert away.json() == {"error": "model_unavailable", "message": "the model is away", "details": {}}
        assert (await running.http.post("/v1/messages", json=body)).json()["response"] == "Here."


async def test_an_unforeseen_error_is_logged_and_not_disclosed(database_url: str) -> None:
    model = ScriptedChatModel(replies=[RuntimeError("the secret of the house")])
    async with running_service(database_url, scripted_models(model)) as running:
        answer = await running.http.post("/v1/messages", json={"contact_id": CONTACT, "message": "Hello?"})
        assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
        assert "secret" not in answer.text
        assert "X-Request-Id" in answer.json()["message"]
