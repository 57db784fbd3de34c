"""The workflows of the library, run on the development CRM."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from pydantic import SecretStr

from core.settings import QueueSettings, WorkflowSettings
from dev_crm.reader import READER, open_reader
from nodes.critique_refine.judgements import Review, Verdict
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

CRM = Path(__file__).parents[2] / "dev_crm" / "seed"


MESSAGE = "Hello Laura, how are you getting on? Tell me if anything keeps you from your work."
POINTS = dict.fromkeys(("personalization_score", "clarity_score", "tone_score", "effectiveness_score"), 25)
ACCEPTED = Verdict(issues=[], approved=True)


class Writer(ScriptedChatModel):
    """Writes the same message again and again, praises it, and gives the verdict of the test."""

    verdict: Verdict = ACCEPTED

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        question = messages[-1].text
        if question.startswith("[Review]"):
            review = Review(strengths=[], weaknesses=[], improvements=[], **POINTS)
            return AIMessage(review.model_dump_json())
        return AIMessage(self.verdict.model_dump_json() if question.startswith("[Validation]") else MESSAGE)


@pytest.fixture(scope="module")
def shared_writer() -> Writer:
    return Writer()


@pytest.fixture
def writer(shared_writer: Writer) -> Iterator[Writer]:
    yield shared_writer
    shared_writer.verdict = ACCEPTED


@pytest.fixture(scope="module")
async def running(shared_database_url: str, shared_writer: Writer) -> AsyncIterator[RunningService]:
    # As an operator names it; the service itself does on its embedded database (tests/e2e).
    reader = shared_database_url.replace("//postgres@", f"//{READER}@")
    workflows = WorkflowSettings(connections=SecretStr(json.dumps({"crm": reader})))
    models = scripted_models(shared_writer)
    async with running_service(
        shared_database_url, models, workflows=workflows, queue=QueueSettings()
    ) as service:
        await open_reader(service.service.pool)
        yield service


def rows_of(file: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((CRM / f"{file}.json").read_text("utf-8"))
    return rows


def contacts(file: str, **having: Any) -> list[str]:
    """Return the contacts of the seeded rows that have these values."""
    rows = rows_of(file)
    found = [row["contact_id"] for row in rows if all(row[name] == value for name, value in having.items())]
    return list(dict.fromkeys(found))


async def run(running: RunningService, name: str, **values: Any) -> dict[str, Any]:
    body = {"input": {"name": name, "input": values}}
    answer = await running.http.post("/workflow/invoke", json=body)
    output: dict[str, Any] = answer.raise_for_status().json()["output"]
    return output


async def list_sent_messages(running: RunningService, contact: str, source: str) -> list[dict[str, Any]]:
    found = (await running.crm(f"/messages?contact_id={contact}"))["messages"]
    return [message for message in found if message["source"] == f"workflow {source}"]


async def test_the_ticket_digest_counts_tickets_and_follows_up_critical_ones(running: RunningService) -> None:
    contact_ids = contacts("tickets")
    tickets = [(await running.crm(f"/contacts/{one}/tickets?limit=100"))["tickets"] for one in contact_ids]
    everything = [ticket for some in tickets for ticket in some]
    urgent = [
        one
        for one, some in zip(contact_ids, tickets, strict=True)
        if any(ticket["severity"] == "critical" and ticket["status"] != "resolved" for ticket in some)
    ]

    digest = await run(
        running, "ticket_digest", contacts=contact_ids, since="2000-01-01", due_at="2030-01-01T09:00:00Z"
    )

    assert digest["error"] == ""
    assert digest["result"]["tickets"] == len(everything)
    assert sum(one["tickets"] for one in digest["result"]["by_severity"]) == len(everything)
    assert len(digest["result"]["follow_ups"]) == len(urgent)


async def test_only_quiet_customers_get_a_message_and_only_one(running: RunningService) -> None:
    talking = contacts("messages", from_me=False)[:1]

    ended = await run(running, "reengage_quiet_customers", contacts=talking, since="2000-01-01")
    assert ended["result"] == {"looked_at": 1, "sent": []}

    ended = await run(running, "reengage_quiet_customers", contacts=[CONTACT], since="2999-01-01")
    message, *more = await list_sent_messages(running, CONTACT, "reengage_quiet_customers")
    assert ended["result"]["sent"] == [message["id"]]
    assert message["text"] == MESSAGE
    assert not more


async def test_a_draft_that_was_rejected_is_not_sent(running: RunningService, writer: Writer) -> None:
    writer.verdict = Verdict(issues=["It promises a discount."], approved=False)
    sent = len(await list_sent_messages(running, CONTACT, "reengage_quiet_customers"))
    ended = await run(running, "reengage_quiet_customers", contacts=[CONTACT], since="2999-01-01")
    assert (ended["status"], ended["result"]["sent"]) == ("succeeded", [])
    assert len(await list_sent_messages(running, CONTACT, "reengage_quiet_customers")) == sent


async def test_nothing_is_sent_without_a_language_model(database_url: str) -> None:
    renewing = contacts("subscriptions", renews_on="2026-12-01", status="active")[:1]
    async with running_service(database_url) as running:
        ended = await run(running, "reengage_quiet_customers", contacts=[CONTACT], since="2999-01-01")
        assert (ended["status"], ended["result"]["sent"]) == ("succeeded", [])
        ended = await run(running, "renewal_reminders", contacts=renewing, until="2026-12-07")
        assert (ended["status"], ended["interrupts"], ended["result"]["sent"]) == ("succeeded", [], [])


async def test_a_reminder_waits_for_approval_and_is_not_sent_when_rejected(
    running: RunningService,
) -> None:
    renewing = contacts("subscriptions", renews_on="2026-12-01", status="active")[:2]
    assert len(renewing) == 2

    waiting = await run(running, "renewal_reminders", contacts=renewing, until="2026-12-07")

    questions = {one["value"]["question"].split()[-1].rstrip("?"): one["id"] for one in waiting["interrupts"]}
    assert set(questions) == set(renewing)
    answers = dict(zip(renewing, ("approve", "reject"), strict=True))
    resume = {questions[contact]: {"decision": decision} for contact, decision in answers.items()}
    body = {"input": {"resume": resume}, "config": {"configurable": {"thread_id": waiting["thread_id"]}}}
    ended = (await running.http.post("/workflow/invoke", json=body)).raise_for_status().json()["output"]
    assert ended["status"] == "succeeded"
    assert [len(await list_sent_messages(running, contact, "renewal_reminders")) for contact in renewing] == [
        1,
        0,
    ]


async def start(running: RunningService, name: str, **values: Any) -> dict[str, Any]:
    """Run a workflow as the CRM does, and wait for its end."""
    body = {"name": name, "input": values, "wait": True}
    report: dict[str, Any] = (await running.http.post("/v1/workflows", json=body)).raise_for_status().json()
    assert report["status"] == "succeeded", report
    return report


async def test_the_etl_completes_profiles_once_from_what_customers_pay_for(running: RunningService) -> None:
    known = {row["contact_id"] for row in rows_of("profiles") if row["team_size"] is not None}
    paying = {
        row["contact_id"]: row for row in rows_of("subscriptions") if row["status"] in {"active", "trialing"}
    }
    expected = {contact: row["seats"] for contact, row in paying.items() if contact not in known}
    assert expected
    assert known & paying.keys()
    before = {one: await running.crm(f"/contacts/{one}") for one in known}

    first = (await start(running, "customer_data_etl"))["result"]

    assert first["extracted"] == len(paying)
    assert sorted(first["loaded"]) == sorted(expected)
    assert sum(one["customers"] for one in first["transformed"]) == len(expected)
    for contact, seats in expected.items():
        assert (await running.crm(f"/contacts/{contact}"))["profile"]["team_size"] == seats
    assert {one: await running.crm(f"/contacts/{one}") for one in known} == before
    again = (await start(running, "customer_data_etl"))["result"]
    assert (again["extracted"], again["loaded"]) == (len(paying), [])


async def test_a_batch_briefs_on_every_contact_but_the_one_that_fails(running: RunningService) -> None:
    nobody = "00000000-0000-4000-8000-000000000000"
    some = contacts("tickets")[:3]

    ended = await start(running, "contact_briefings", contacts=[*some, nobody])

    assert (ended["result"]["asked"], ended["result"]["failed"]) == (4, [nobody])
    briefings = {one["contact_id"]: one for one in ended["result"]["briefings"]}
    assert sorted(briefings) == sorted(some)
    for contact, briefing in briefings.items():
        tickets = (await running.crm(f"/contacts/{contact}/tickets?limit=100"))["tickets"]
        unresolved = [ticket["id"] for ticket in tickets if ticket["status"] != "resolved"]
        assert briefing["name"] == (await running.crm(f"/contacts/{contact}"))["name"]
        assert (briefing["open_tickets"], briefing["briefing"]) == (unresolved, MESSAGE)
    assert any(briefing["open_tickets"] for briefing in briefings.values())


async def test_sales_are_added_up_by_region_and_never_across_currencies(running: RunningService) -> None:
    zones = {row["id"]: row["timezone"] for row in rows_of("contacts")}
    deals = [{**row, "timezone": zones[row["contact_id"]]} for row in rows_of("opportunities")]
    brazil = [deal for deal in deals if deal["timezone"] == "America/Sao_Paulo"]

    def total(some: list[dict[str, Any]], *, currency: str, closed: tuple[str, ...] = ()) -> float:
        values = [
            float(deal["value"])
            for deal in some
            if deal["currency"] == currency
            and (deal["stage"] in closed if closed else not deal["stage"].startswith("closed"))
        ]
        return sum(values)

    sales = (await start(running, "regional_sales"))["result"]

    assert sales["deals"] == len(deals), "every region of the seed data is among the default ones"
    assert [one["deals"] for one in sales["regions"]] == sorted(
        (one["deals"] for one in sales["regions"]), reverse=True
    )
    [region] = [one for one in sales["regions"] if one["region"] == "Brazil"]
    assert (region["deals"], region["amounts"]) == (
        len(brazil),
        [{"currency": "BRL", "won": 0, "open": total(brazil, currency="BRL")}],
    )
    assert {one["currency"]: (one["won"], one["open"]) for one in sales["totals"]} == {
        currency: (
            total(deals, currency=currency, closed=("closed_won",)),
            total(deals, currency=currency),
        )
        for currency in {deal["currency"] for deal in deals}
    }


async def test_the_crms_reader_sees_the_crm_and_nothing_else(running: RunningService) -> None:
    async def read(sql: str) -> dict[str, Any]:
        step = {"id": "q", "type": "database_query", "connection": "crm", "sql": sql}
        body = {"definition": {"name": "peek", "steps": [step]}, "wait": True}
        report: dict[str, Any] = (await running.http.post("/v1/workflows", json=body)).json()
        return report

    assert (await read("SELECT count(*) AS n FROM crm.contacts"))["result"] == [
        {"n": len(rows_of("contacts"))}
    ]
    for sql in (
        "SELECT * FROM auth.api_keys",
        "SELECT * FROM checkpoints",
        "SELECT * FROM crm.idempotency_keys",
        "SELECT set_config('role', 'postgres', false)",
    ):
        refused = await read(sql)
        assert (refused["status"], "permission denied" in str(refused)) == ("failed", True), json.dumps(
            refused
        )
