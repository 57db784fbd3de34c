"""What a customer notices whose onboarding or deal goes on in the messages they send to ``/v1/messages``."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx_sse import aconnect_sse

from tests.support.onboarding import AISHA
from tests.support.service import RunningService, running_service

RAFAEL = "d924702e-7216-42a7-9f90-db93a970ca03"
START = "We signed up today, how do we get started?"
INVOICE = "Please send me the invoice of last month again, I cannot find it."


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[RunningService]:
    async with running_service(database_url) as running:
        yield running


async def say(running: RunningService, text: str, **fields: Any) -> dict[str, Any]:
    body = {"contact_id": AISHA, "channel_id": "whatsapp", "message": text, **fields}
    answer = await running.http.post("/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    answered: dict[str, Any] = answer.json()
    return answered


async def test_a_new_contact_is_onboarded_by_messages_and_can_leave_and_return(
    running: RunningService,
) -> None:
    begun = await say(running, START)
    assert (begun["agent_used"], begun["path"], begun["success"]) == ("onboarding", "journey", True)
    assert begun["response"].endswith("How many people work at your company?")
    assert begun["interrupts"] == []
    assert begun["metadata"]["memory"]["recorded"]

    aside = await say(running, INVOICE)
    assert (aside["agent_used"], aside["journey"]) == ("billing_support", None)
    assert aside["session_id"] == begun["session_id"]

    answered = await say(running, "12")
    assert answered["journey"] == begun["journey"]
    assert answered["response"].endswith("Which industry are you in?")

    paused = await say(running, "later, please")
    assert "continue from this point" in paused["response"]
    assert (await say(running, "hello"))["agent_used"] != "onboarding"
    returned = await say(running, "How do we continue setting up our new account?")
    assert returned["journey"] == begun["journey"]
    assert returned["response"].startswith("Welcome back!")
    assert (await running.crm(f"/contacts/{AISHA}"))["profile"]["company_size"] == 12


async def test_a_repeated_reply_is_answered_once(running: RunningService) -> None:
    await say(running, START)
    first = await say(running, "12", message_id="m-2")
    again = await say(running, "12", message_id="m-2")
    assert again["response"] == first["response"]
    assert again["journey"] == first["journey"]
    assert (await say(running, "tutoring"))["response"].endswith(
        "What would you like to use our product for?"
    )


async def test_an_onboarding_that_the_crm_began_goes_on_in_the_messages(running: RunningService) -> None:
    started = await running.http.post("/onboarding/invoke", json={"input": {"contact_id": AISHA}})
    thread_id = started.json()["output"]["thread_id"]
    answered = await say(running, "about 12 people")
    assert answered["journey"] == {"graph": "onboarding", "subject": AISHA, "thread_id": thread_id}
    assert answered["response"].endswith("Which industry are you in?")


async def test_an_erased_onboarding_begins_anew(running: RunningService) -> None:
    begun = await say(running, START)
    await running.http.delete(f"/v1/threads/{begun['journey']['thread_id']}")
    again = await say(running, START)
    assert again["journey"]["thread_id"] != begun["journey"]["thread_id"]
    assert again["response"].endswith("How many people work at your company?")


async def test_a_streaming_client_sees_the_journey_s_question(running: RunningService) -> None:
    body = {"contact_id": AISHA, "message": START}
    async with aconnect_sse(
        running.http, "POST", "/v1/messages", json=body, headers={"Accept": "text/event-stream"}
    ) as source:
        events = [(event.event, event.json()) async for event in source.aiter_sse()]
    assert [name for name, _ in events] == ["start", "agent", "token", "done"]
    assert events[1][1]["agent"] == "onboarding"
    assert events[2][1]["text"] == events[3][1]["response"]


async def test_a_customer_who_accepts_the_proposal_closes_the_deal(running: RunningService) -> None:
    accepted = await say(
        running, "Fechado, aceitamos a proposta como está.", contact_id=RAFAEL, message_id="m-1"
    )
    assert (accepted["agent_used"], accepted["success"]) == ("sales", True)
    assert accepted["journey"]["subject"] == "OPP-3002"
    assert accepted["response"].startswith("Obrigado! Registrei que você aceita a proposta.")
    deal = await running.crm(f"/contacts/{RAFAEL}/opportunities/OPP-3002")
    assert (deal["stage"], deal["close_reason"]) == ("closed_won", "Fechado, aceitamos a proposta como está.")
    later = await say(running, "Fechado, aceitamos a proposta como está.", contact_id=RAFAEL)
    assert later["agent_used"] != "sales"
