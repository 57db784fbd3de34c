"""What an agent notices of the tools over memory."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from langchain_core.messages import ToolCall
from langchain_core.tools import BaseTool
from pydantic import SecretStr

from core.memory import Edge, Memory, Message, Node, NoMemory, Scope
from core.postgres import Pool
from core.settings import Settings
from dev_crm.app import create_crm
from memory.embedded import open_configured_memory
from tests.support.crm_faults import KEY, LAURA, crm_client
from tests.support.memory_grpc import lexical_embedder
from tools.catalogue import crm_tools, memory_tools
from tools.crm.models import Article, Ticket
from tools.execution import CallContext, Observation, execute
from tools.knowledge_base import rank_articles
from tools.relations import RelationRecorder, build_contact_edges, build_ticket_edges

LAURAS = Scope("default", LAURA)
MESSAGE = Message(
    id="m1",
    role="customer",
    text="Our parrot is called Rex.",
    at=datetime(2026, 5, 7, tzinfo=UTC),
    session_id="s1",
)


def calling(tenant: str = "default", contact: str = LAURA) -> CallContext:
    return CallContext(contact_id=contact, idempotency_key="key", tenant=tenant)


async def do(
    tools: Mapping[str, BaseTool], name: str, run: CallContext | None = None, **args: Any
) -> Observation:
    call = ToolCall(name=name, args=args, id="c", type="tool_call")
    observation: Observation = (await execute(tools, call, run or calling())).artifact
    return observation


async def test_recall_finds_what_was_said_with_its_date_and_source(pool: Pool) -> None:
    async with open_configured_memory(Settings.load(), pool, lexical_embedder()) as memory:
        await memory.add_messages(LAURAS, [MESSAGE])
        found = (await do(memory_tools(memory), "recall", query="name of the parrot"))["result"]
    assert found == [
        {"what": MESSAGE.text, "date": "2026-05-07", "source": "message of session s1, customer said"}
    ]


async def test_a_note_is_found_by_the_next_agent_and_kept_once(pool: Pool) -> None:
    async with open_configured_memory(Settings.load(), pool, lexical_embedder()) as memory:
        tools = memory_tools(memory)
        for _ in range(2):
            assert (await do(tools, "remember", text="A refund was promised."))["success"]
        found = (await do(tools, "recall", query="refund"))["result"]
    assert [(each["what"], each["source"]) for each in found] == [("A refund was promised.", "note")]


@pytest.mark.parametrize("other", [calling(tenant="other"), calling(contact="somebody")])
async def test_a_model_that_names_another_contact_reads_its_own(pool: Pool, other: CallContext) -> None:
    written: dict[str, Any] = {
        "contact_id": LAURA,
        "tenant": "default",
        "context": {"contact_id": LAURA},
        "scope": LAURA,
    }
    async with open_configured_memory(Settings.load(), pool, lexical_embedder()) as memory:
        await memory.add_messages(LAURAS, [MESSAGE])
        tools = memory_tools(memory)
        await do(tools, "remember", text="A refund was promised.")
        assert (await do(tools, "recall", other, query="parrot refund", **written))["result"] == []


async def test_unavailable_memory_is_reported_to_the_model() -> None:
    tools = memory_tools(NoMemory("it is away"))
    away = {"kind": "unavailable", "message": "it is away"}
    assert (await do(tools, "recall", query="x"))["error"] == away
    assert (await do(tools, "remember", text="x"))["error"] == away


async def test_tickets_are_found_by_what_they_are_related_to(pool: Pool) -> None:
    async def first(memory: Memory) -> Any:
        tools = crm_tools(crm, memory=memory)
        return (await do(tools, "search_past_tickets", query="warehouse robots"))["result"][0]

    async with (
        crm_client(transport=httpx.ASGITransport(create_crm(pool, SecretStr(KEY)))) as crm,
        open_configured_memory(Settings.load(), pool, lexical_embedder()) as memory,
    ):
        oldest = (await crm.list_tickets(LAURA)).tickets[-1]
        ticket = Node("ticket", oldest.id, oldest.id)
        robots = Node("product", "robots", "Warehouse Robots")
        edge = Edge(
            source=ticket,
            type="ABOUT",
            target=robots,
            valid_from=MESSAGE.at,
            valid_to=None,
            source_message_id="m1",
        )
        await memory.add_messages(LAURAS, [MESSAGE])
        await memory.upsert_edges(LAURAS, [edge])
        found = await first(memory)
        assert found["title"] == oldest.title
        assert f"{oldest.title} ABOUT Warehouse Robots" in found["related"]
        # Without memory there are tickets all the same.
        assert "related" not in await first(NoMemory())


async def test_tickets_are_related_when_they_are_read_and_created(pool: Pool) -> None:
    async with (
        crm_client(transport=httpx.ASGITransport(create_crm(pool, SecretStr(KEY)))) as crm,
        open_configured_memory(Settings.load(), pool, lexical_embedder()) as memory,
    ):
        tools = crm_tools(crm, memory=memory)
        made = await do(
            tools,
            "create_engineering_ticket",
            title="Boletos in the wrong currency",
            description="Since Monday.",
            severity="low",
        )
        # Nobody entered an edge, the CRM does not list it among its tickets, and it has not the words.
        found = (await do(tools, "search_past_tickets", query="fatura errada"))["result"][0]
        assert found["related"] == ["Boletos in the wrong currency ABOUT billing"]
        await do(tools, "get_contact")
        graph = await memory.query_graph(LAURAS, LAURA)
        tickets = (await crm.list_tickets(LAURA)).tickets
        assert {(edge.type, edge.target.key) for edge in graph.edges} == {
            *(("HAS_TICKET", ticket.id) for ticket in tickets),
            ("HAS_TICKET", made["result"]["ticket_id"]),
            ("WORKS_AT", "meridian logistics"),
        }
        opened = {edge.target.key: edge.valid_from for edge in graph.edges}
        assert tickets[-1].created_at
        assert opened[tickets[-1].id] == datetime.fromisoformat(tickets[-1].created_at)
        # Seen again, by another process too, nothing changes.
        again = [*build_ticket_edges(LAURA, tickets), *build_contact_edges(await crm.get_contact(LAURA))]
        assert await memory.upsert_edges(LAURAS, again) == 0


async def test_a_hanging_memory_does_not_delay_a_tool(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.relations.RECORD_SECONDS", 0.01)
    monkeypatch.setattr("tools.tickets.GRAPH_SECONDS", 0.01)

    class Hanging(NoMemory):
        async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:
            await asyncio.Event().wait()
            raise AssertionError("nothing ends the wait")

    async with crm_client(transport=httpx.ASGITransport(create_crm(pool, SecretStr(KEY)))) as crm:
        found = await do(crm_tools(crm, memory=Hanging()), "search_past_tickets", query="export")
    assert found["success"]


async def test_a_relation_is_sent_to_memory_once_by_all_tools_together() -> None:
    recorded: list[Edge] = []

    class CountingMemory(NoMemory):
        async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:
            recorded.extend(edges)
            return len(edges)

    memory, ticket = CountingMemory(), Ticket(id="T-1", title="Slow export")
    edges = build_ticket_edges(LAURA, [ticket])
    for _ in range(2):
        await RelationRecorder(memory).record(LAURAS, edges)
    assert recorded == edges
    await RelationRecorder(memory).record(Scope("other", LAURA), edges)
    await RelationRecorder(CountingMemory("another memory")).record(LAURAS, edges)
    assert recorded == edges * 3


async def test_the_cache_of_recorded_relations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.relations.MAX_CACHED_EDGES", 2)
    monkeypatch.setattr(RelationRecorder, "_recorded", {})
    recorded: list[str] = []

    class CountingMemory(NoMemory):
        async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:
            recorded.extend(edge.target.key for edge in edges)
            return len(edges)

    recorder = RelationRecorder(CountingMemory())
    for number in (1, 2, 3, 3, 1):
        await recorder.record(LAURAS, build_ticket_edges(LAURA, [Ticket(id=f"T-{number}", title="x")]))
    assert recorded == ["T-1", "T-2", "T-3", "T-1"]


def test_articles_that_name_the_error_come_first_and_the_rest_stay_in_the_crms_order() -> None:
    titles = ["Exports", "Error 404", "Imports", "Error 500"]
    articles = [Article(id=title, title=title, body="") for title in titles]
    ranked = rank_articles(articles, "Error 500")
    assert [article.title for article in ranked] == ["Error 500", "Exports", "Error 404", "Imports"]
    assert rank_articles(articles, "how do exports fail") == articles
