"""The development CRM's profiles, opportunities, orders, invoices, follow-ups and handoffs."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from checkpoints.pool import open_pool
from core.postgres import Pool
from core.settings import DatabaseSettings
from dev_crm import migrations
from dev_crm.app import create_crm
from dev_crm.migrations import migrate, seed_tables

KEY = "a-key-for-tests"
LAURA = "550e8400-e29b-41d4-a716-446655440000"
MARCUS = "1cb6b3eb-298e-4c78-8758-c35109b6df7f"
NOBODY = "00000000-0000-4000-8000-000000000000"
OPEN = f"/api/v1/contacts/{LAURA}/opportunities/OPP-3001"
WON = "/api/v1/contacts/39d1522e-45e3-4564-9bfc-ebf66169a9ac/opportunities/OPP-2987"
LOST = "/api/v1/contacts/a1f565af-2323-4d07-adbd-94fda55b6f3e/opportunities/OPP-2990"
PROFILE = f"/api/v1/contacts/{LAURA}/profile"
FOLLOW_UPS = f"/api/v1/contacts/{LAURA}/follow-ups"
HANDOFFS = f"/api/v1/contacts/{LAURA}/handoffs"

FOLLOW_UP = {
    "due_at": "2027-01-11T09:00:00-06:00",
    "subject": "Ask about the budget",
    "note": "She will know after the board meets.",
    "opportunity_id": "OPP-3001",
    "source": "sales-agent",
}
HANDOFF = {
    "team": "billing",
    "reason": "She asks for a person.",
    "summary": "An invoice is disputed; nothing was promised.",
    "source": "support-agent",
}
WRITES = [
    ("PATCH", PROFILE, {"team_size": 14}),
    ("PATCH", OPEN, {"next_action": "Call on Monday"}),
    ("POST", FOLLOW_UPS, FOLLOW_UP),
    ("POST", HANDOFFS, HANDOFF),
]
LISTS = ["opportunities", "orders", "invoices", "follow-ups", "handoffs"]


@pytest.fixture
def app(pool: Pool) -> FastAPI:
    return create_crm(pool, SecretStr(KEY))


def client_of(app: FastAPI) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://crm", headers=headers)


@pytest.fixture
async def crm(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture(scope="module")
async def reader(shared_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client for tests that change nothing in the CRM, which share its database."""
    settings = DatabaseSettings(pool_min_size=0, pool_max_size=4)
    async with (
        open_pool(shared_database_url, settings) as pool,
        client_of(create_crm(pool, SecretStr(KEY))) as client,
    ):
        yield client


async def read(crm: httpx.AsyncClient, path: str) -> dict[str, Any]:
    response = await crm.get(path)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def patched(crm: httpx.AsyncClient, path: str, changes: dict[str, Any]) -> dict[str, Any]:
    response = await crm.patch(path, json=changes)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert body["error"] == code
    return body


# What it holds


async def test_the_seed_covers_every_stage_and_status(crm: httpx.AsyncClient, pool: Pool) -> None:
    async with pool.connection() as connection:
        contacts = await (await connection.execute("SELECT id FROM crm.contacts")).fetchall()
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in LISTS[:3]}
    profiles = []
    for contact in contacts:
        path = f"/api/v1/contacts/{contact['id']}"
        profiles.append((await read(crm, path))["profile"])
        for name, rows in seen.items():
            rows.extend((await read(crm, f"{path}/{name}"))[name])
    assert {row["stage"] for row in seen["opportunities"]} == {
        "qualification",
        "needs",
        "solution",
        "objections",
        "proposal",
        "negotiation",
        "closed_won",
        "closed_lost",
    }
    assert {row["status"] for row in seen["orders"]} == {
        "processing",
        "shipped",
        "delivered",
        "delayed",
        "cancelled",
    }
    assert {row["status"] for row in seen["invoices"]} == {"open", "paid", "overdue", "refunded"}
    known = [sum(value is not None for value in profile.values()) for profile in profiles]
    assert {min(known), max(known)} == {0, 4}


async def test_opportunities_come_newest_first_and_one_can_be_read_alone(reader: httpx.AsyncClient) -> None:
    found = (await read(reader, f"/api/v1/contacts/{LAURA}/opportunities"))["opportunities"]
    assert [each["id"] for each in found] == ["OPP-3007", "OPP-3001"]
    assert await read(reader, OPEN) == found[1]
    assert found[1]["qualification"] == {
        "budget": None,
        "authority": None,
        "need": "Room for more than 50,000 contacts and exports that do not time out",
        "timeline": "Before the renewal in March 2027",
    }


@pytest.mark.parametrize("path", [f"/api/v1/contacts/{LAURA}/{name}" for name in LISTS])
async def test_the_limit_of_lists_is_respected(crm: httpx.AsyncClient, path: str) -> None:
    for at in range(2):
        await crm.post(FOLLOW_UPS, json={**FOLLOW_UP, "subject": f"Follow-up {at}"})
        await crm.post(HANDOFFS, json={**HANDOFF, "reason": f"Reason {at}"})
    [whole] = (await read(crm, path)).values()
    [first] = (await read(crm, f"{path}?limit=1")).values()
    assert len(whole) == 2
    assert first == whole[:1]
    assert_problem(await crm.get(f"{path}?limit=0"), 422, "invalid_request")


# Changing


async def test_learned_facts_are_added_to_the_profile(crm: httpx.AsyncClient) -> None:
    changed = await patched(crm, PROFILE, {"team_size": 14, "industry": None})
    assert changed["profile"] == {
        "company_size": 420,
        "industry": "Logistics",
        "use_case": None,
        "team_size": 14,
    }
    assert await read(crm, f"/api/v1/contacts/{LAURA}") == changed
    assert await patched(crm, PROFILE, {}) == changed


async def test_a_customer_without_a_profile_gets_one(crm: httpx.AsyncClient, pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM crm.profiles WHERE contact_id = %s", (LAURA,))
    assert set((await read(crm, f"/api/v1/contacts/{LAURA}"))["profile"].values()) == {None}
    assert (await patched(crm, PROFILE, {"industry": "Freight"}))["profile"]["industry"] == "Freight"


async def test_a_change_of_an_opportunity_leaves_the_rest(crm: httpx.AsyncClient) -> None:
    before = await read(crm, OPEN)
    changes: dict[str, Any] = {
        "stage": "needs",
        "value": 12000.5,
        "qualification": {"budget": "12,000 dollars a year", "need": None},
        "needs": ["Batch exports"],
        "objections": [{"text": "Too dear.", "answer": None}, {"text": "Too late.", "answer": "In time."}],
        "solution": None,
    }
    after = await patched(crm, OPEN, changes)
    assert after == {
        **before,
        **changes,
        "value": "12000.50",
        "qualification": {**before["qualification"], "budget": "12,000 dollars a year"},
        "version": before["version"] + 1,
        "updated_at": after["updated_at"],
    }
    assert datetime.fromisoformat(after["updated_at"]) > datetime.fromisoformat(before["updated_at"])
    assert await read(crm, OPEN) == after


async def test_an_empty_change_keeps_the_version(crm: httpx.AsyncClient) -> None:
    before = await read(crm, OPEN)
    assert await patched(crm, OPEN, {}) == before
    assert await patched(crm, OPEN, {"stage": None}) == before


async def test_changes_made_at_once_all_survive(crm: httpx.AsyncClient) -> None:
    before = await read(crm, OPEN)
    changes: list[dict[str, Any]] = [
        {"stage": "needs"},
        {"needs": ["Exports"]},
        {"solution": "Batch exports"},
        {"terms": "Paid yearly"},
        {"next_action": "Call"},
        {"qualification": {"budget": "12,000"}},
        {"qualification": {"authority": "The COO"}},
        {"value": 1},
    ]
    await asyncio.gather(*(patched(crm, OPEN, change) for change in changes))
    after = await read(crm, OPEN)
    assert after["version"] == before["version"] + len(changes)
    assert after["qualification"] == {
        **before["qualification"],
        "budget": "12,000",
        "authority": "The COO",
    }
    for change in changes:
        for name in set(change) - {"qualification", "value"}:
            assert after[name] == change[name]


async def test_facts_learned_of_a_customer_at_once_all_survive(crm: httpx.AsyncClient) -> None:
    facts: list[dict[str, Any]] = [
        {"company_size": 430},
        {"industry": "Freight"},
        {"use_case": "Exports"},
        {"team_size": 5},
    ]
    await asyncio.gather(*(patched(crm, PROFILE, fact) for fact in facts))
    known = (await read(crm, f"/api/v1/contacts/{LAURA}"))["profile"]
    assert known == {name: value for fact in facts for name, value in fact.items()}


@pytest.mark.parametrize(("path", "stage"), [(WON, "closed_won"), (LOST, "closed_lost")])
async def test_a_closed_opportunity_takes_no_changes_and_says_so(
    reader: httpx.AsyncClient, path: str, stage: str
) -> None:
    before = await read(reader, path)
    body = assert_problem(await reader.patch(path, json={"stage": "needs"}), 409, "opportunity_closed")
    assert f"is closed ({stage})" in body["message"]
    assert await read(reader, path) == before


async def test_of_concurrent_closings_exactly_one_succeeds(crm: httpx.AsyncClient) -> None:
    closings = [{"stage": "closed_won"}, {"stage": "closed_lost"}] * 3
    answers = await asyncio.gather(*(crm.patch(OPEN, json=closing) for closing in closings))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5


async def test_a_follow_up_is_planned_and_can_be_seen(crm: httpx.AsyncClient) -> None:
    made = await crm.post(FOLLOW_UPS, json=FOLLOW_UP)
    assert made.status_code == 201
    body = made.json()
    assert body.items() >= {**FOLLOW_UP, "contact_id": LAURA, "due_at": "2027-01-11T15:00:00Z"}.items()
    without = {**FOLLOW_UP, "opportunity_id": None}
    later = (await crm.post(FOLLOW_UPS, json=without)).json()
    assert (await read(crm, FOLLOW_UPS))["follow_ups"] == [later, body]


async def test_a_handoff_is_kept_and_can_be_seen(crm: httpx.AsyncClient) -> None:
    made = await crm.post(HANDOFFS, json=HANDOFF)
    assert made.status_code == 201
    assert made.json().items() >= {**HANDOFF, "contact_id": LAURA}.items()
    assert (await read(crm, HANDOFFS))["handoffs"] == [made.json()]


# Idempotency


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_requests_sent_at_once_with_one_key_have_one_effect(
    crm: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(crm.request(method, path, json=body, headers=headers) for _ in range(8)))
    assert {answer.is_success for answer in answers} == {True}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.status_code for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_a_key_that_comes_back_with_another_body_is_refused(
    crm: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": "k"}
    await crm.request(method, path, json=body, headers=headers)
    name = next(iter(body))
    other = {**body, name: 15 if name == "team_size" else "2028-01-01T00:00:00Z"}
    response = await crm.request(method, path, json=other, headers=headers)
    assert_problem(response, 409, "idempotency_key_reused")


async def test_a_replayed_change_returns_the_first_response_despite_later_changes(
    crm: httpx.AsyncClient,
) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await crm.patch(OPEN, json={"stage": "needs"}, headers=headers)
    await crm.patch(OPEN, json={"stage": "closed_lost"})
    again = await crm.patch(OPEN, json={"stage": "needs"}, headers=headers)
    assert (again.status_code, again.content) == (200, first.content)
    assert (await read(crm, OPEN))["stage"] == "closed_lost"


async def test_a_key_used_for_one_contact_is_free_for_another(crm: httpx.AsyncClient) -> None:
    for contact_id in (LAURA, MARCUS):
        path = f"/api/v1/contacts/{contact_id}/handoffs"
        response = await crm.post(path, json=HANDOFF, headers={"Idempotency-Key": "k"})
        assert (response.status_code, response.json()["contact_id"]) == (201, contact_id)


# Refusals


@pytest.mark.parametrize("path", [f"/api/v1/contacts/{NOBODY}/{name}" for name in LISTS])
async def test_an_unknown_contact_is_not_found(reader: httpx.AsyncClient, path: str) -> None:
    assert assert_problem(await reader.get(path), 404, "not_found")["details"] == {"contact_id": NOBODY}


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_nothing_can_be_written_for_an_unknown_contact(
    reader: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]
) -> None:
    response = await reader.request(method, path.replace(LAURA, NOBODY), json={**body})
    assert_problem(response, 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PATCH"])
@pytest.mark.parametrize("opportunity_id", ["OPP-3004", "OPP-1"])
async def test_an_opportunity_of_another_contact_is_not_found(
    reader: httpx.AsyncClient, method: str, opportunity_id: str
) -> None:
    path = f"/api/v1/contacts/{LAURA}/opportunities/{opportunity_id}"
    body = assert_problem(await reader.request(method, path, json={"stage": "needs"}), 404, "not_found")
    assert body["details"] == {"contact_id": LAURA, "opportunity_id": opportunity_id}


async def test_a_follow_up_is_about_no_other_contacts_opportunity(reader: httpx.AsyncClient) -> None:
    response = await reader.post(FOLLOW_UPS, json={**FOLLOW_UP, "opportunity_id": "OPP-3004"})
    assert_problem(response, 404, "not_found")
    assert (await read(reader, FOLLOW_UPS))["follow_ups"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(("PATCH", PROFILE, {"company_size": size}) for size in (0, -1, 10_000_001, 1.5, "many")),
        ("PATCH", PROFILE, {"industry": " "}),
        ("PATCH", PROFILE, {"name": "a field that is not the profile's"}),
        ("PATCH", OPEN, {"stage": "won"}),
        ("PATCH", OPEN, {"value": -1}),
        ("PATCH", OPEN, {"value": "NaN"}),
        ("PATCH", OPEN, {"value": 10_000_000_000}),
        ("PATCH", OPEN, {"currency": "dollars"}),
        ("PATCH", OPEN, {"version": 7}),
        ("PATCH", OPEN, {"contact_id": MARCUS}),
        ("PATCH", OPEN, {"needs": ["x"] * 51}),
        ("PATCH", OPEN, {"needs": ["a\x00b"]}),
        ("PATCH", OPEN, {"objections": [{"answer": "without a text"}]}),
        ("PATCH", OPEN, {"qualification": {"mood": "good"}}),
        ("PATCH", OPEN, {"proposal": "x" * 20_001}),
        ("POST", FOLLOW_UPS, {**FOLLOW_UP, "due_at": "2027-01-11T09:00:00"}),
        ("POST", FOLLOW_UPS, {**FOLLOW_UP, "due_at": "soon"}),
        ("POST", FOLLOW_UPS, {**FOLLOW_UP, "due_at": "9999-12-31T23:59:59-14:00"}),
        ("POST", FOLLOW_UPS, {**FOLLOW_UP, "opportunity_id": "a b"}),
        ("POST", HANDOFFS, {**HANDOFF, "team": ""}),
        ("POST", HANDOFFS, {**HANDOFF, "summary": "x" * 20_001}),
    ],
)
async def test_invalid_fields_are_refused_by_name(
    reader: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]
) -> None:
    problem = assert_problem(await reader.request(method, path, json=body), 422, "invalid_request")
    assert any(name in problem["message"] for name in body)


async def test_a_malformed_opportunity_id_is_refused(reader: httpx.AsyncClient) -> None:
    response = await reader.get(f"/api/v1/contacts/{LAURA}/opportunities/%00")
    assert_problem(response, 422, "invalid_request")


# Migrating a database in use


async def test_rows_added_to_the_seed_are_inserted_once_and_not_for_deleted_contacts(
    pool: Pool, crm: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM crm.contacts WHERE id = %s", (MARCUS,))
        await connection.execute("UPDATE crm.contacts SET name = 'Renamed' WHERE id = %s", (LAURA,))
        await connection.execute("DELETE FROM crm.profiles")
        await connection.execute("DELETE FROM crm.orders")
    # Stands for a release whose seed files gained the profiles and the orders.
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, seed_tables("profiles", "orders")))
    await migrate(pool)
    laura = await read(crm, f"/api/v1/contacts/{LAURA}")
    assert (laura["name"], laura["profile"]["industry"]) == ("Renamed", "Logistics")
    assert len((await read(crm, f"/api/v1/contacts/{LAURA}/orders"))["orders"]) == 2
    # A deleted contact stays deleted, and so does what is deleted from now on.
    assert_problem(await crm.get(f"/api/v1/contacts/{MARCUS}"), 404, "not_found")
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM crm.orders")
    await migrate(pool)
    assert (await read(crm, f"/api/v1/contacts/{LAURA}/orders"))["orders"] == []
