"""What a support lead, the customer and the CRM notice when a person takes a conversation over."""

import asyncio
from typing import Any

import httpx
from langchain_core.messages import AIMessage

from core.settings import ApprovalSettings
from nodes.react.state import Reflection
from service.routes.messages import HELD_TEXT
from service.runs.threads import ThreadHolders
from tests.integration.test_chat_completions import client_of
from tests.integration.test_mcp import connect
from tests.support.general_agent import AGAIN, OTHER, PARROT, remembered, replying, say, service, shown
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

REPLY = "Hello, this is Ana from support. I am looking at your export."


async def post(running: RunningService, session: str, what: str, **body: Any) -> httpx.Response:
    """Claim, reply or release."""
    return await running.http.post(f"/v1/sessions/{session}/{what}", json=body or None)


async def read_session(running: RunningService, session: str) -> dict[str, Any]:
    found: dict[str, Any] = (await running.http.get(f"/v1/sessions/{session}")).raise_for_status().json()
    return found


async def list_sent(running: RunningService) -> list[str]:
    """Return what the CRM has sent the customer as a person's, in order."""
    messages = await running.crm(f"/messages?contact_id={CONTACT}")
    return [each["text"] for each in reversed(messages["messages"]) if each["author"] == "local"]


async def test_agents_are_silent_while_a_person_has_the_conversation_and_go_on_with_what_was_said(
    database_url: str,
) -> None:
    model = replying("A green one.", "The person helped you.")
    async with service(database_url, model) as running:
        session = (await say(running, PARROT, channel_id="whatsapp"))["session_id"]
        claimed = (await post(running, session, "claim")).raise_for_status().json()
        assert (claimed["state"], claimed["held_by"]) == ("person", "local")

        waiting = await say(running, "Is anybody there?", channel_id="whatsapp")
        assert (waiting["session_id"], waiting["path"], waiting["response"]) == (session, "person", "")
        assert waiting["success"] is True
        assert len(model.prompts) == 1
        latest = (await read_session(running, session))["latest"]
        assert (latest["last_message"], latest["author"]) == ("Is anybody there?", "customer")

        replied = (await post(running, session, "reply", text=REPLY)).raise_for_status().json()
        assert replied["response"] == REPLY
        assert await list_sent(running) == [REPLY]
        assert ("human", REPLY) in await remembered(running)
        assert (await read_session(running, session))["latest"]["author"] == "person"

        released = (await post(running, session, "release")).raise_for_status().json()
        assert (released["state"], released["held_by"]) == ("agent", "")
        answered = await say(running, AGAIN, channel_id="whatsapp")
        assert (answered["session_id"], answered["response"]) == (session, "The person helped you.")
        assert REPLY in shown(model)
        said = (
            (await running.http.get(f"/v1/sessions/{session}/messages")).raise_for_status().json()["messages"]
        )
        assert [(each["author"], each["name"], each["text"]) for each in said] == [
            ("customer", "", PARROT),
            ("agent", "", "A green one."),
            ("customer", "", "Is anybody there?"),
            ("person", "local", REPLY),
            ("customer", "", AGAIN),
            ("agent", "", "The person helped you."),
        ]
        assert [each["details"].get("agent_used") for each in said if each["author"] == "agent"] == [
            "general"
        ] * 2
        overview = (await running.http.get("/v1/overview")).raise_for_status().json()
        assert overview["conversations"] == {"opened": 1, "by_agents": 0, "handed_over": 0, "taken_over": 1}
        assert sum(part["runs"] for part in overview["runs"]) == 4
        assert overview["open"] == {"running": 0, "pending": 0, "oldest_pending_seconds": 0}
        actions = (await running.http.get("/v1/audit", params={"action": "takeover"})).json()["entries"]
        assert [entry["outcome"] for entry in actions] == ["released", "claimed"]


async def test_other_clients_are_told_that_a_person_answers(database_url: str) -> None:
    model = replying("A green one.")
    async with service(database_url, model) as running:
        session = (await say(running, PARROT))["session_id"]
        await post(running, session, "claim")
        async with connect(running) as client:
            message = {"message": AGAIN, "contact_id": CONTACT, "session_id": session}
            told = await client.call_tool("general", message)
            assert not told.is_error
            assert told.content[0].text == HELD_TEXT  # type: ignore[union-attr]
            assert told.structured_content["path"] == "person"
        named = {"X-Session-Id": session, "X-Contact-Id": CONTACT}
        chat: Any = {"model": "coordinator", "messages": [{"role": "user", "content": AGAIN}]}
        async with client_of(running, **named) as chatting:
            whole = await chatting.chat.completions.create(**chat)
            assert whole.choices[0].message.content == HELD_TEXT
            stream = await chatting.chat.completions.create(**chat, stream=True)
            texts = [choice.delta.content or "" async for chunk in stream for choice in chunk.choices]
            assert "".join(texts) == HELD_TEXT
        assert len(model.prompts) == 1


async def test_one_of_two_people_who_take_over_at_once_gets_the_conversation(database_url: str) -> None:
    async with service(database_url, replying("A green one.")) as running:
        session = (await say(running, PARROT))["session_id"]
        holders = ThreadHolders(running.service.pool)
        got = await asyncio.gather(
            *(holders.hold("default", session, user, take_over=False) for user in ("ana", "ben"))
        )
        assert sorted(got) == [False, True]
        refused = await post(running, session, "claim")
        assert refused.status_code == 409
        assert refused.json()["error"] == "held_by_person"
        assert (await post(running, session, "reply", text=REPLY)).json()["error"] == "not_held"
        assert (await post(running, session, "release")).status_code == 409
        taken = await running.http.post(f"/v1/sessions/{session}/claim", params={"take_over": True})
        assert taken.json()["held_by"] == "local"
        assert await list_sent(running) == []


async def test_a_reply_that_is_sent_again_with_its_key_reaches_the_customer_once(database_url: str) -> None:
    async with service(database_url, replying("A green one.")) as running:
        session = (await say(running, PARROT))["session_id"]
        await post(running, session, "claim")
        for _ in range(2):
            answered = await running.http.post(
                f"/v1/sessions/{session}/reply", json={"text": REPLY}, headers={"Idempotency-Key": "reply-1"}
            )
            assert answered.json() == {"session_id": session, "response": REPLY}
        assert await list_sent(running) == [REPLY]
        instructions = await post(running, session, "reply", text="Set GOOGLE_API_KEY or MODEL to answer.")
        assert instructions.status_code == 422
        assert await list_sent(running) == [REPLY]


async def test_a_person_who_takes_over_sees_the_answer_that_was_being_written(database_url: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    model = ScriptedChatModel(replies=[AIMessage("A green one.")], before_token=hold)
    async with service(database_url, model) as running:
        asking = asyncio.create_task(say(running, PARROT, session_id="parrot"))
        await reached.wait()
        claiming = asyncio.create_task(post(running, "parrot", "claim"))
        holders = ThreadHolders(running.service.pool)
        while not await holders.get("default", "parrot"):  # noqa: ASYNC110 - a row
            await asyncio.sleep(0)
        assert not claiming.done()
        go_on.set()
        assert (await asking)["response"] == "A green one."
        assert (await claiming).json()["latest"]["last_message"] == "A green one."


async def test_what_an_agent_asked_to_do_is_void_once_a_person_has_taken_over(database_url: str) -> None:
    done = Reflection(
        success=True, reasoning="Found.", task_complete=True, final_answer="We credit you 4711."
    )
    model = ScriptedChatModel(replies=[calling("I look.", ("get_orders", {})), done])
    review = ApprovalSettings(unsupported="review")
    async with running_service(database_url, scripted_models(model), approvals=review) as running:
        question = "Where is my order? It should have arrived on Monday."
        session = (await say(running, question, channel_id="whatsapp"))["session_id"]
        assert (await read_session(running, session))["state"] == "waiting"
        [approval] = (await running.http.get("/v1/approvals")).json()["approvals"]
        await post(running, session, "claim")
        decision = await running.http.post(f"/v1/approvals/{approval['id']}", json={"decision": "approve"})
        assert (decision.status_code, decision.json()["error"]) == (409, "held_by_person")
        await post(running, session, "reply", text=REPLY)
        assert (await running.http.get("/v1/approvals")).json()["approvals"] == []
        assert (await say(running, "Thanks", channel_id="whatsapp"))["path"] == "person"
        assert await list_sent(running) == [REPLY]


async def test_a_conversation_that_was_handed_over_waits_in_the_inbox_until_it_is_given_back(
    database_url: str,
) -> None:
    async with service(database_url, replying("A green one.", "A green one.")) as running:
        await say(running, PARROT, OTHER, channel_id="whatsapp")
        handed = await say(running, "I want to speak to your manager.", channel_id="whatsapp")
        assert handed["path"] == "handoff"
        session = handed["session_id"]
        [waiting] = await list_inbox(running, state="waiting")
        assert (waiting["id"], waiting["contact_id"]) == (session, CONTACT)
        assert waiting["latest"]["team"]
        assert waiting["closed_at"] is not None
        # The customer writes on in the conversation that the person has taken over, and not in a new one.
        claimed = (await post(running, session, "claim")).json()
        assert (claimed["state"], claimed["closed_at"]) == ("person", None)
        assert (await say(running, "Hello?", channel_id="whatsapp"))["session_id"] == session
        assert await list_inbox(running, state="waiting") == []
        assert [each["id"] for each in await list_inbox(running, held_by="local")] == [session]
        await post(running, session, "release")
        assert await list_inbox(running, state="waiting") == []
        [found] = await list_inbox(running, query="GREEN")
        assert found["contact_id"] == OTHER


async def list_inbox(running: RunningService, **filters: str) -> list[dict[str, Any]]:
    answered = await running.http.get("/v1/sessions", params=filters)
    found: list[dict[str, Any]] = answered.raise_for_status().json()["sessions"]
    return found
