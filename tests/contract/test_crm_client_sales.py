"""The CRM client's part for sales and service: against the development CRM, and on the wire."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError

from core.errors import CrmError, CrmRefused
from core.postgres import Pool
from dev_crm.app import create_crm
from tests.support.crm_faults import (
    KEY,
    LAURA,
    NOBODY,
    Answer,
    Dropped,
    LosesFirstAnswer,
    Scripted,
    crm_client,
    scripted_crm,
    served,
)
from tools.crm.client import CrmClient
from tools.crm.models import CustomerProfile, Objection, OpportunityChanges, Qualification

Call: TypeAlias = Callable[[CrmClient, str], Awaitable[Any]]

OPEN = "OPP-3001"
DUE_AT = "2027-01-11T09:00:00-06:00"
SOPHIE = "39d1522e-45e3-4564-9bfc-ebf66169a9ac"

READS: list[Call] = [
    lambda crm, contact_id: crm.list_opportunities(contact_id),
    lambda crm, contact_id: crm.get_opportunity(contact_id, OPEN),
    lambda crm, contact_id: crm.list_orders(contact_id),
    lambda crm, contact_id: crm.list_invoices(contact_id),
    lambda crm, contact_id: crm.list_follow_ups(contact_id),
    lambda crm, contact_id: crm.list_handoffs(contact_id),
]
WRITES: list[Call] = [
    lambda crm, contact_id: crm.update_profile(contact_id, CustomerProfile(team_size=14), key="key-1"),
    lambda crm, contact_id: crm.update_opportunity(
        contact_id, OPEN, OpportunityChanges(stage="needs"), key="key-1"
    ),
    lambda crm, contact_id: crm.schedule_follow_up(
        contact_id, due_at=DUE_AT, subject="Budget", note="Ask.", opportunity_id=OPEN, key="key-1"
    ),
    lambda crm, contact_id: crm.hand_over(
        contact_id, team="billing", reason="She asked.", summary="Disputed invoice.", key="key-1"
    ),
]


@pytest.fixture
def development_crm(pool: Pool) -> FastAPI:
    return create_crm(pool, SecretStr(KEY))


@pytest.fixture
async def crm(development_crm: FastAPI) -> AsyncIterator[CrmClient]:
    async with crm_client(transport=httpx.ASGITransport(development_crm)) as client:
        yield client


async def version_of_open(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (
            await connection.execute("SELECT version FROM crm.opportunities WHERE id = %s", (OPEN,))
        ).fetchone()
    assert row is not None
    return int(row["version"])


# What the development CRM answers


async def test_a_contact_is_read_with_what_is_known_of_the_customer(crm: CrmClient) -> None:
    assert (await crm.get_contact(LAURA)).profile == CustomerProfile(company_size=420, industry="Logistics")


async def test_learned_facts_are_kept_and_fields_that_are_none_stay(crm: CrmClient) -> None:
    changed = await crm.update_profile(LAURA, CustomerProfile(team_size=14), key="key-1")
    assert changed.profile == CustomerProfile(company_size=420, industry="Logistics", team_size=14)
    assert await crm.get_contact(LAURA) == changed


async def test_opportunities_are_read_newest_first(crm: CrmClient) -> None:
    newest, older = await crm.list_opportunities(LAURA)
    assert (newest.id, older.id, older.stage, older.value) == ("OPP-3007", OPEN, "qualification", 10_800)
    assert older == await crm.get_opportunity(LAURA, OPEN)
    assert older.qualification == Qualification(
        need="Room for more than 50,000 contacts and exports that do not time out",
        timeline="Before the renewal in March 2027",
    )


async def test_only_the_given_fields_of_an_opportunity_change(crm: CrmClient) -> None:
    before = await crm.get_opportunity(LAURA, OPEN)
    changes = OpportunityChanges(
        stage="objections",
        value=0.1 + 0.2,
        qualification=Qualification(budget="12,000 dollars"),
        objections=[Objection(text="Too dear."), Objection(text="Too late.", answer="In time.")],
    )
    after = await crm.update_opportunity(LAURA, OPEN, changes, key="key-1")
    assert after == before.model_copy(
        update={
            "stage": "objections",
            "value": 0.3,
            "qualification": before.qualification.model_copy(update={"budget": "12,000 dollars"}),
            "objections": changes.objections,
            "version": before.version + 1,
            "updated_at": after.updated_at,
        }
    )
    assert await crm.update_opportunity(LAURA, OPEN, changes, key="key-1") == after


async def test_changing_a_closed_opportunity_is_refused_with_the_reason(crm: CrmClient) -> None:
    with pytest.raises(CrmRefused, match="is closed") as caught:
        await crm.update_opportunity(SOPHIE, "OPP-2987", OpportunityChanges(stage="needs"), key="key-1")
    assert caught.value.crm_status == 409


async def test_a_follow_up_is_planned_once_per_key(crm: CrmClient) -> None:
    schedule = WRITES[2]
    made = await schedule(crm, LAURA)
    assert (made.due_at, made.subject, made.opportunity_id) == ("2027-01-11T15:00:00Z", "Budget", OPEN)
    assert await schedule(crm, LAURA) == made
    assert await crm.list_follow_ups(LAURA) == [made]


async def test_a_conversation_is_handed_over_once_per_key(crm: CrmClient) -> None:
    hand_over = WRITES[3]
    made = await hand_over(crm, LAURA)
    assert (made.team, made.reason, made.summary) == ("billing", "She asked.", "Disputed invoice.")
    assert await hand_over(crm, LAURA) == made
    assert await crm.list_handoffs(LAURA) == [made]


async def test_orders_and_invoices_are_read_newest_first(crm: CrmClient) -> None:
    orders, invoices = await crm.list_orders(LAURA), await crm.list_invoices(LAURA)
    assert [(order.id, order.status) for order in orders] == [
        ("ORD-7001", "delayed"),
        ("ORD-6954", "delivered"),
    ]
    assert [(invoice.number, invoice.status, invoice.amount) for invoice in invoices] == [
        ("INV-2026-1102", "open", 640),
        ("INV-2026-0311", "paid", 10_788),
    ]


@pytest.mark.parametrize("call", [*READS, *WRITES])
async def test_an_unknown_contact_is_a_refusal_in_the_crms_own_words(crm: CrmClient, call: Call) -> None:
    with pytest.raises(CrmRefused, match=f"There is no contact '{NOBODY}'") as caught:
        await call(crm, NOBODY)
    assert caught.value.crm_status == 404


@pytest.mark.parametrize("opportunity_id", ["", ".", "..", "OPP-3004", "a/b", "\x00", "../../status"])
async def test_an_opportunity_of_another_contact_is_a_refusal(crm: CrmClient, opportunity_id: str) -> None:
    with pytest.raises(CrmRefused):
        await crm.get_opportunity(LAURA, opportunity_id)


# What is on the wire


@pytest.mark.parametrize("call", WRITES)
async def test_each_repeat_of_a_write_is_the_same_request_under_the_same_key(call: Call) -> None:
    answers: list[Scripted] = [Dropped(), Answer(503, ""), Answer(422, {"message": "no"})]
    async with scripted_crm(*answers) as server, crm_client(server.url) as crm:
        with pytest.raises(CrmRefused, match="no"):
            await call(crm, LAURA)
    assert [request.headers["idempotency-key"] for request in server.requests] == ["key-1"] * 3
    first = server.requests[0]
    assert first.target.startswith(f"/api/v1/contacts/{LAURA}/")
    assert first.body
    assert [(each.method, each.body) for each in server.requests] == [(first.method, first.body)] * 3


async def test_only_what_is_set_is_sent() -> None:
    async with scripted_crm(Answer(422, {})) as server, crm_client(server.url) as crm:
        changes = OpportunityChanges(terms="Yearly", qualification=Qualification(need="Exports"), needs=[])
        with pytest.raises(CrmRefused):
            await crm.update_opportunity(LAURA, OPEN, changes, key="key-1")
    [request] = server.requests
    assert request.method == "PATCH"
    assert request.body == {"terms": "Yearly", "qualification": {"need": "Exports"}, "needs": []}


@pytest.mark.parametrize("call", [*READS, *WRITES])
async def test_a_response_outside_the_contract_is_an_error(call: Call) -> None:
    answer = Answer(200, {"opportunities": "none", "orders": 1, "invoices": 1, "follow_ups": 1})
    async with scripted_crm(answer) as server, crm_client(server.url) as crm:
        with pytest.raises(CrmError, match="not match its contract"):
            await call(crm, LAURA)


async def test_a_crm_without_profiles_is_read_as_an_empty_profile() -> None:
    async with scripted_crm(Answer(200, {"id": "1", "name": "Ana"})) as server, crm_client(server.url) as crm:
        assert (await crm.get_contact(LAURA)).profile == CustomerProfile()


@pytest.mark.parametrize("call", WRITES)
async def test_a_write_whose_response_was_lost_is_done_once(
    development_crm: FastAPI, pool: Pool, call: Call
) -> None:
    app = LosesFirstAnswer(development_crm)
    async with served(app) as url, crm_client(url) as crm:
        before = await version_of_open(pool)
        await call(crm, LAURA)
        changes = await version_of_open(pool) - before
        made = len(await crm.list_follow_ups(LAURA)) + len(await crm.list_handoffs(LAURA))
        learned = (await crm.get_contact(LAURA)).profile.team_size == 14
    assert len(app.lost) == 1
    assert changes + made + learned == 1


@pytest.mark.parametrize("size", [0, -5, 10_000_001])
def test_a_size_no_company_has_is_refused_before_it_is_sent(size: int) -> None:
    with pytest.raises(ValidationError):
        CustomerProfile(company_size=size)
