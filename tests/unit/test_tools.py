"""The tools over the development CRM: what they find and do, and what the model sees of them."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import SecretStr
from syrupy.assertion import SnapshotAssertion

from checkpoints.pool import Pool
from crm.app import create_crm
from tests.support.crm_faults import KEY, LAURA, crm_client
from tools.call import CallContext
from tools.catalogue import crm_tools
from tools.check_service_status import MAX_INCIDENTS
from tools.search_knowledge_base import MAX_ARTICLES
from tools.search_past_tickets import MAX_TICKETS

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


async def test_the_knowledge_base_gives_the_best_articles_as_titles_and_texts(
    tools: Mapping[str, BaseTool],
) -> None:
    found = await tools["search_knowledge_base"].ainvoke({"query": "Error 500 export contacts"})
    assert found[0]["title"] == "Handling Large Exports"
    assert "batch export API" in found[0]["body"]
    assert len(found) <= MAX_ARTICLES
    assert {key for article in found for key in article} == {"title", "body"}


async def test_nothing_found_is_an_empty_list(tools: Mapping[str, BaseTool]) -> None:
    assert await tools["search_knowledge_base"].ainvoke({"query": "zzyzx"}) == []


async def test_the_version_comes_with_plan_and_limits(tools: Mapping[str, BaseTool]) -> None:
    assert await tools["get_product_version"].ainvoke({"context": CONTEXT}) == {
        "plan": "Enterprise",
        "product_version": "2.3.1",
        "status": "active",
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


async def test_an_outage_is_seen(tools: Mapping[str, BaseTool], pool: Pool) -> None:
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
