"""How a channel drives a customer's onboarding over HTTP, and what the company's approvers see of it."""

from typing import Any

import httpx

from tests.support.onboarding import AISHA, make_reading, reader
from tests.support.scripted import scripted_models
from tests.support.service import RunningService, running_service


async def post(running: RunningService, given: dict[str, Any], **configurable: str) -> httpx.Response:
    config = {"configurable": {"thread_id": "aisha", **configurable}}
    return await running.http.post("/onboarding/invoke", json={"input": given, "config": config})


async def begun(running: RunningService) -> dict[str, Any]:
    output: dict[str, Any] = (await post(running, {"contact_id": AISHA})).json()["output"]
    return output


async def test_a_question_is_in_the_output_and_a_reply_resumes_it(database_url: str) -> None:
    model = reader(make_reading(company_size=50))
    async with running_service(database_url, scripted_models(model)) as running:
        output = await begun(running)
        [asked] = output["interrupts"]
        assert (asked["value"]["kind"], asked["value"]["question"]) == ("question", "company_size")
        assert asked["value"]["text"] == output["messages"][-1]["content"]
        assert asked["response_schema"]["required"] == ["reply"]
        for wrong in ("fifty", {"reply": ""}, {"reply": "x" * 4_001}, {"reply": "50", "more": 1}):
            refused = await post(running, {"resume": wrong})
            assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request"), wrong
        answered = (await post(running, {"resume": {"reply": "about fifty"}})).json()["output"]
        assert answered["profile"]["company_size"] == 50
        [asked] = answered["interrupts"]
        assert asked["value"]["question"] == "industry"
        kept = await running.crm(f"/contacts/{AISHA}")
        assert kept["profile"]["company_size"] == 50


async def test_a_question_to_a_customer_is_not_an_approval(database_url: str) -> None:
    async with running_service(database_url, scripted_models(reader())) as running:
        [asked] = (await begun(running))["interrupts"]
        assert (await running.http.get("/v1/approvals")).json()["approvals"] == []
        decided = await running.http.post(f"/v1/approvals/{asked['id']}.aisha", json={"reply": "50"})
        assert (decided.status_code, decided.json()["error"]) == (404, "not_found")


async def test_a_new_message_while_a_question_waits_is_refused_or_read_as_the_reply(
    database_url: str,
) -> None:
    model = reader(make_reading(company_size=50))
    async with running_service(database_url, scripted_models(model)) as running:
        await begun(running)
        message = {"contact_id": AISHA, "message": "about fifty"}
        refused = await post(running, message)
        assert (refused.status_code, refused.json()["error"]) == (409, "interrupt_pending")
        taken = (await post(running, message, multitask_strategy="interrupt")).json()["output"]
        assert taken["profile"]["company_size"] == 50
        assert [each["value"]["question"] for each in taken["interrupts"]] == ["industry"]


async def test_the_customer_is_answered_in_the_locale_of_the_request(database_url: str) -> None:
    async with running_service(database_url, scripted_models(reader())) as running:
        answer = await post(running, {"contact_id": AISHA}, locale="pt-BR")
        assert answer.json()["output"]["messages"][-1]["content"].startswith("Boas-vindas, Aisha!")


async def test_a_thread_of_another_customer_is_refused(database_url: str) -> None:
    async with running_service(database_url, scripted_models(reader())) as running:
        await begun(running)
        other = {"contact_id": "550e8400-e29b-41d4-a716-446655440000"}
        refused = await post(running, other, multitask_strategy="interrupt")
        assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
