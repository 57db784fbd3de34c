"""The tools over the development CRM: what they find and do, and what the model sees of them."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import SecretStr, ValidationError
from syrupy.assertion import SnapshotAssertion

from core.postgres import Pool
from dev_crm.app import create_crm
from tests.support.crm_faults import KEY, LAURA, crm_client
from tools.approval import get_approval_reason
from tools.catalogue import crm_tools
from tools.customer import MAX_OPPORTUNITIES, MAX_ORDERS
from tools.execution import CallContext
from tools.knowledge import MAX_ARTICLES, MAX_INCIDENTS
from tools.tickets import MAX_TICKETS

CONTEXT = CallContext(contact_id=LAURA, idempotency_key="key-1")


@pytest.fixture
async def tools(pool: Pool) -> AsyncIterator[Mapping[str, BaseTool]]:
    app = create_crm(pool, SecretStr(KEY))
    async with crm_client(transport=httpx.ASGITransport(app)) as crm:
        yield crm_tools(crm)


async def rows(pool: Pool, query: str) -> list[dict[str, Any]]:
    async with pool.connection() as connection:
        return await (await connection.execute(query.encode())).fetchall()


# What the model sees


def test_what_the_model_sees_of_each_tool(tools: Mapping[str, BaseTool], snapshot: SnapshotAssertion) -> None:
    assert {name: convert_to_openai_tool(each)["function"] for name, each in tools.items()} == snapshot


def texts(schema: Any) -> list[str]:
    """Every description in a schema."""
    if isinstance(schema, dict):
        own = [schema["description"]] if isinstance(schema.get("description"), str) else []
        return own + [text for value in schema.values() for text in texts(value)]
    return [text for value in schema for text in texts(value)] if isinstance(schema, list) else []


def test_each_description_is_one_paragraph_and_each_argument_has_one(tools: Mapping[str, BaseTool]) -> None:
    for each in tools.values():
        seen = convert_to_openai_tool(each)["function"]
        for text in texts(seen):
            assert " ".join(text.split()) == text
        for argument in seen["parameters"]["properties"].values():
            assert argument["description"]


def test_the_model_is_shown_nothing_of_the_runs_context(tools: Mapping[str, BaseTool]) -> None:
    for each in tools.values():
        seen = str(convert_to_openai_tool(each))
        for hidden in ("context", "contact_id", "idempotency", "Given by the run"):
            assert hidden not in seen


# What they find


async def test_the_knowledge_base_gives_the_best_articles_with_ids_titles_and_texts(
    tools: Mapping[str, BaseTool],
) -> None:
    found = await tools["search_knowledge_base"].ainvoke({"query": "Error 500 export contacts"})
    assert found[0]["title"] == "Handling Large Exports"
    assert "batch export API" in found[0]["body"]
    assert len(found) <= MAX_ARTICLES
    assert {key for article in found for key in article} == {"id", "title", "body", "found_by"}


async def test_nothing_found_is_an_empty_list(tools: Mapping[str, BaseTool]) -> None:
    assert await tools["search_knowledge_base"].ainvoke({"query": "zzyzx"}) == []


async def test_the_version_comes_with_plan_and_limits(tools: Mapping[str, BaseTool]) -> None:
    assert await tools["get_product_version"].ainvoke({"context": CONTEXT}) == {
        "plan": "Enterprise",
        "product_version": "2.3.1",
        "status": "active",
        "seats": 40,
        "monthly_amount": "899.00",
        "currency": "USD",
        "billing_cycle": "yearly",
        "started_on": "2024-03-11",
        "renews_on": "2027-03-11",
        "usage": {
            "contacts": {"used": 48_500, "limit": 50_000},
            "messages_this_month": {"used": 131_200, "limit": 250_000},
            "automations": {"used": 38},
        },
    }


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("import CSV slow", "Slow CSV import"),
        ("DUPLICATE contacts", "Duplicate contacts after import"),
        ("nothing like it", "Filtered segment shows fewer contacts than expected"),
        ("", "Filtered segment shows fewer contacts than expected"),
    ],
)
async def test_past_tickets_that_match_come_first_and_the_newest_of_equals(
    tools: Mapping[str, BaseTool], query: str, first: str
) -> None:
    found = await tools["search_past_tickets"].ainvoke({"query": query, "context": CONTEXT})
    assert found[0]["title"] == first
    assert len(found) <= MAX_TICKETS
    assert {"title", "description", "status", "resolution"} <= set(found[0])


async def test_a_customer_with_many_tickets_shows_the_few_that_matter(
    tools: Mapping[str, BaseTool], pool: Pool
) -> None:
    await rows(
        pool,
        f"""
        INSERT INTO crm.tickets (id, contact_id, language, title, description, status, severity, created_at)
        SELECT 'TKT-9' || n, '{LAURA}', 'en', 'Question ' || n, 'About billing.', 'open', 'low', now()
        FROM generate_series(1, 12) AS n RETURNING id
        """,
    )
    found = await tools["search_past_tickets"].ainvoke({"query": "slow CSV import", "context": CONTEXT})
    assert len(found) == MAX_TICKETS
    assert found[0]["title"] == "Slow CSV import"


async def test_the_status_names_components_and_the_latest_incidents(tools: Mapping[str, BaseTool]) -> None:
    found = await tools["check_service_status"].ainvoke({})
    assert found["status"] == "operational"
    assert found["components"]["Imports and exports"] == "operational"
    assert len(found["recent_incidents"]) == MAX_INCIDENTS
    starts = [incident["started_at"] for incident in found["recent_incidents"]]
    assert starts == sorted(starts, reverse=True)


async def test_an_outage_is_reported(tools: Mapping[str, BaseTool], pool: Pool) -> None:
    await rows(pool, "UPDATE crm.components SET status = 'outage' WHERE name = 'API' RETURNING name")
    found = await tools["check_service_status"].ainvoke({})
    assert (found["status"], found["components"]["API"]) == ("outage", "outage")


# What they do


async def test_a_ticket_is_opened_for_the_runs_contact_under_the_runs_key(
    tools: Mapping[str, BaseTool], pool: Pool
) -> None:
    args = {"title": "Export fails", "description": "Over 40K.", "severity": "high", "context": CONTEXT}
    first = await tools["create_engineering_ticket"].ainvoke(args)
    assert await tools["create_engineering_ticket"].ainvoke(args) == first
    kept = await rows(
        pool,
        "SELECT id, contact_id::text, title, severity FROM crm.engineering_tickets "
        "WHERE source = 'ventros-agents'",
    )
    assert kept == [
        {"id": first["ticket_id"], "contact_id": LAURA, "title": "Export fails", "severity": "high"}
    ]
    keys = await rows(pool, "SELECT endpoint, key FROM crm.idempotency_keys")
    assert keys == [{"endpoint": "engineering-tickets", "key": "key-1"}]


async def test_a_message_is_sent_to_the_runs_contact_under_the_runs_key(
    tools: Mapping[str, BaseTool], pool: Pool
) -> None:
    args = {"solution": "Use batches.\nThen filter.", "context": CONTEXT}
    first = await tools["send_solution_to_customer"].ainvoke(args)
    assert await tools["send_solution_to_customer"].ainvoke(args) == first
    kept = await rows(
        pool,
        "SELECT id::text, contact_id::text, text, from_me FROM crm.messages WHERE source = 'ventros-agents'",
    )
    assert kept == [
        {
            "id": first["message_id"],
            "contact_id": LAURA,
            "text": "Use batches.\nThen filter.",
            "from_me": True,
        }
    ]
    keys = await rows(pool, "SELECT endpoint, key FROM crm.idempotency_keys")
    assert keys == [{"endpoint": "messages", "key": "key-1"}]


# Sales and service


async def test_the_contact_comes_with_profile_and_subscription_and_without_ids(
    tools: Mapping[str, BaseTool],
) -> None:
    found = await tools["get_contact"].ainvoke({"context": CONTEXT})
    assert (found["name"], found["company"], found["language"]) == (
        "Laura Bennett",
        "Meridian Logistics",
        "en",
    )
    assert found["profile"] == {"company_size": 420, "industry": "Logistics"}
    assert found["subscription"]["plan"] == "Enterprise"
    assert LAURA not in str(found)


async def test_a_contact_without_a_subscription_is_found_without_one(
    tools: Mapping[str, BaseTool], pool: Pool
) -> None:
    await rows(pool, f"DELETE FROM crm.subscriptions WHERE contact_id = '{LAURA}' RETURNING plan")
    found = await tools["get_contact"].ainvoke({"context": CONTEXT})
    assert (found["name"], found["subscription"]) == ("Laura Bennett", None)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("get_orders", {"id": "ORD-7001", "status": "delayed"}),
        ("get_invoices", {"number": "INV-2026-1102", "status": "open", "amount": 640.0}),
        ("get_opportunities", {"id": "OPP-3007", "stage": "qualification", "value": 5400.0}),
    ],
)
async def test_orders_invoices_and_opportunities_come_newest_first(
    tools: Mapping[str, BaseTool], name: str, first: dict[str, Any]
) -> None:
    found = await tools[name].ainvoke({"context": CONTEXT})
    assert len(found) == 2
    assert found[0].items() >= first.items()
    assert LAURA not in str(found)


@pytest.mark.parametrize(
    ("name", "table", "most"),
    [("get_orders", "orders", MAX_ORDERS), ("get_opportunities", "opportunities", MAX_OPPORTUNITIES)],
)
async def test_only_the_newest_records_are_shown(
    tools: Mapping[str, BaseTool], pool: Pool, name: str, table: str, most: int
) -> None:
    made = {
        "orders": "(id, contact_id, item, status, placed_at) "
        "SELECT 'ORD-9' || n, '{}', 'x', 'shipped', now()",
        "opportunities": "(id, contact_id, title, stage, value, currency, qualification, needs, objections, "
        "created_at, updated_at) SELECT 'OPP-9' || n, '{}', 'x', 'needs', 1, 'USD', '{{}}', '[]', '[]', "
        "now(), now()",
    }
    values = made[table].format(LAURA)
    await rows(pool, f"INSERT INTO crm.{table} {values} FROM generate_series(1, 12) AS n RETURNING id")
    found = await tools[name].ainvoke({"context": CONTEXT})
    assert len(found) == most
    assert all("-9" in row["id"] for row in found)


async def test_a_follow_up_is_planned_for_the_runs_contact_under_the_runs_key(
    tools: Mapping[str, BaseTool], pool: Pool
) -> None:
    args = {
        "due_at": "2027-01-11T09:00:00-06:00",
        "subject": "Ask about the budget",
        "note": "After the board meets.",
        "opportunity_id": "OPP-3001",
        "context": CONTEXT,
    }
    first = await tools["schedule_follow_up"].ainvoke(args)
    assert await tools["schedule_follow_up"].ainvoke(args) == first
    kept = await rows(
        pool, "SELECT id::text, contact_id::text, due_at, subject, opportunity_id FROM crm.follow_ups"
    )
    assert kept == [
        {
            "id": first["follow_up_id"],
            "contact_id": LAURA,
            "due_at": datetime(2027, 1, 11, 15, tzinfo=UTC),
            "subject": "Ask about the budget",
            "opportunity_id": "OPP-3001",
        }
    ]
    [key] = await rows(pool, "SELECT key FROM crm.idempotency_keys")
    assert key == {"key": "key-1"}


async def test_a_follow_up_may_belong_to_no_opportunity(tools: Mapping[str, BaseTool], pool: Pool) -> None:
    args = {"due_at": "2027-01-11T09:00:00Z", "subject": "Call", "note": "Ask.", "context": CONTEXT}
    await tools["schedule_follow_up"].ainvoke(args)
    assert await rows(pool, "SELECT opportunity_id FROM crm.follow_ups") == [{"opportunity_id": None}]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("schedule_follow_up", {"due_at": "2027-01-11T09:00:00", "subject": "s", "note": "n"}),
        ("schedule_follow_up", {"due_at": "soon", "subject": "s", "note": "n"}),
        ("schedule_follow_up", {"due_at": "2027-01-11T09:00:00Z", "subject": "s" * 201, "note": "n"}),
        ("schedule_follow_up", {"due_at": "2027-01-11T09:00:00Z", "subject": "s", "note": ""}),
        ("hand_over_to_human", {"team": "the best", "reason": "r", "summary": "s"}),
        ("hand_over_to_human", {"team": "sales", "reason": "r" * 501, "summary": "s"}),
        ("hand_over_to_human", {"team": "sales", "reason": "r", "summary": ""}),
    ],
)
async def test_arguments_out_of_bounds_have_no_effect(
    tools: Mapping[str, BaseTool], pool: Pool, name: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        await tools[name].ainvoke({**wrong, "context": CONTEXT})
    assert await rows(pool, "SELECT key FROM crm.idempotency_keys") == []


async def test_a_conversation_is_handed_over_under_the_runs_key(
    tools: Mapping[str, BaseTool], pool: Pool
) -> None:
    args = {"team": "billing", "reason": "She asked.", "summary": "Disputed invoice.", "context": CONTEXT}
    first = await tools["hand_over_to_human"].ainvoke(args)
    assert await tools["hand_over_to_human"].ainvoke(args) == first
    kept = await rows(pool, "SELECT id::text, contact_id::text, team, reason, summary FROM crm.handoffs")
    assert kept == [
        {
            "id": first["handoff_id"],
            "contact_id": LAURA,
            "team": "billing",
            "reason": "She asked.",
            "summary": "Disputed invoice.",
        }
    ]


def test_follow_ups_and_handovers_need_no_approval(tools: Mapping[str, BaseTool]) -> None:
    for name in ("schedule_follow_up", "hand_over_to_human"):
        assert get_approval_reason(tools[name], {}) is None
