"""The workflows of the library, run on the development CRM."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

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
    async with running_service(shared_database_url, scripted_models(shared_writer)) as service:
        yield service


def contacts(file: str, **having: Any) -> list[str]:
    """Return the contacts of the seeded rows that have these values."""
    rows = json.loads((CRM / f"{file}.json").read_text("utf-8"))
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
