"""Tools over support and engineering tickets, and what memory relates them to."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from core.errors import MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Memory, Scope
from core.memory.vocabulary import find_topics
from tools.approval import require_approval
from tools.crm.client import CrmClient
from tools.crm.models import Severity, Ticket
from tools.execution import CallContext
from tools.relations import HAS_TICKET, RelationRecorder, build_ticket_edges

log = get_logger(__name__)

# What a model is shown.
MAX_TICKETS = 5
MAX_RELATED = 5
# How many of the latest tickets are looked up in the graph; each takes a few milliseconds.
_MAX_LOOKUPS = 20
# Tickets are useful without their relations, which are not worth a long wait.
GRAPH_SECONDS = 1.0
# Shorter words of a query, such as "in" and "of", do not count.
_MIN_WORD_CHARACTERS = 3


def search_past_tickets_tool(crm: CrmClient, memory: Memory) -> BaseTool:
    """Return the tool; it reads this memory's graph and records in it the tickets that it sees."""
    relations = RelationRecorder(memory)

    @tool(parse_docstring=True)
    async def search_past_tickets(
        query: str, context: Annotated[CallContext, InjectedToolArg]
    ) -> list[dict[str, Any]]:
        """Find the customer's earlier support tickets about a problem and how they were resolved.

        Use it to learn whether the customer reported an error like this one before.

        Args:
            query: Key words of the problem.
            context: Given by the run.
        """
        listed = (await crm.list_tickets(context.contact_id)).tickets
        await relations.record(context.scope, build_ticket_edges(context.contact_id, listed))
        tickets = [*listed, *await _find_unlisted(memory, context, {ticket.id for ticket in listed})]
        related = await _find_related(memory, context.scope, [ticket.id for ticket in tickets[:_MAX_LOOKUPS]])
        words = {word for word in query.lower().split() if len(word) >= _MIN_WORD_CHARACTERS}
        words |= set(find_topics(query))

        def count_matches(ticket: Ticket) -> int:
            text = f"{ticket.title} {ticket.description} {' '.join(related.get(ticket.id, ()))}".lower()
            return sum(word in text for word in words)

        # The sort is stable: of tickets that match equally, the newest come first.
        ranked = sorted(tickets, key=count_matches, reverse=True)
        return [_describe(ticket, related.get(ticket.id, ())) for ticket in ranked[:MAX_TICKETS]]

    return search_past_tickets


def create_engineering_ticket_tool(crm: CrmClient, memory: Memory) -> BaseTool:
    """Return the tool; it also records the new ticket in this memory's graph."""
    relations = RelationRecorder(memory)

    @tool(parse_docstring=True)
    async def create_engineering_ticket(
        title: str, description: str, severity: Severity, context: Annotated[CallContext, InjectedToolArg]
    ) -> dict[str, str]:
        """Escalate a defect to the engineering team by opening a ticket.

        Only when support cannot solve it: no article covers it and no setting fixes it.

        Args:
            title: The defect in one line.
            description: What happens, what was expected, since when, and what was found out.
            severity: low: cosmetic; medium: a workaround exists; high: work is blocked; critical: data
                is lost or everyone is affected.
            context: Given by the run.
        """
        created = await crm.create_engineering_ticket(
            context.contact_id,
            title=title,
            description=description,
            severity=severity,
            key=context.idempotency_key,
        )
        ticket = Ticket(id=created.id, title=title, description=description)
        await relations.record(context.scope, build_ticket_edges(context.contact_id, [ticket]))
        return {"ticket_id": created.id}

    return require_approval(create_engineering_ticket, _approve_critical)


def _approve_critical(arguments: Mapping[str, Any]) -> str | None:
    return "it wakes people up: its severity is critical" if arguments["severity"] == "critical" else None


async def _find_unlisted(memory: Memory, context: CallContext, listed: Collection[str]) -> list[Ticket]:
    """Return tickets that the graph knows but the CRM does not list, such as those for engineering."""
    try:
        async with asyncio.timeout(GRAPH_SECONDS):
            graph = await memory.query_graph(context.scope, context.contact_id, edge_type=HAS_TICKET)
    except (MemoryUnavailable, MemoryRefused, TimeoutError) as error:
        log.warning("ticket_graph_unavailable", reason=str(error))
        return []
    return [
        Ticket(id=edge.target.key, title=edge.target.label, created_at=edge.valid_from.isoformat())
        for edge in graph.edges
        if edge.target.key not in listed
    ]


async def _find_related(memory: Memory, scope: Scope, tickets: Sequence[str]) -> dict[str, list[str]]:
    """Return the edges of each ticket, in words; what memory cannot answer in time is left out."""
    related: dict[str, list[str]] = {}
    try:
        async with asyncio.timeout(GRAPH_SECONDS):
            # Sequentially: one tool call should not take several of the pool's connections.
            for ticket in tickets:
                edges = (await memory.query_graph(scope, ticket)).edges
                lines = [
                    f"{edge.source.label} {edge.type} {edge.target.label}"
                    for edge in edges
                    if edge.type != HAS_TICKET
                ]
                if lines:
                    related[ticket] = lines[:MAX_RELATED]
    except (MemoryUnavailable, MemoryRefused, TimeoutError) as error:
        log.warning("ticket_relations_unavailable", reason=str(error))
    return related


def _describe(ticket: Ticket, related: Sequence[str]) -> dict[str, Any]:
    fields = ticket.model_dump(exclude_none=True)
    return {**fields, "related": list(related)} if related else fields
