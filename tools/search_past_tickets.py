"""Look at the customer's earlier tickets, and at what memory relates them to."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from core.errors import MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Memory, Scope
from core.memory.topics import topics_of
from tools.crm.client import CrmClient
from tools.crm.models import Ticket
from tools.execution import CallContext
from tools.relations import HAS_TICKET, RelationRecorder, build_ticket_edges

log = get_logger(__name__)

# What a model reads at once.
MAX_TICKETS = 5
MAX_RELATED = 5
# The latest tickets are looked up in the graph; each takes a few milliseconds.
_LOOKED_UP = 20
# Tickets are found without; what they are related to is not worth a long wait.
GRAPH_SECONDS = 1.0


def search_past_tickets(crm: CrmClient, memory: Memory) -> BaseTool:
    """The tool, over this CRM, and this memory's graph, which it tells of the tickets it sees."""
    relations = RelationRecorder(memory)

    @tool("search_past_tickets", parse_docstring=True)
    async def search(query: str, context: Annotated[CallContext, InjectedToolArg]) -> list[dict[str, Any]]:
        """Find the customer's earlier support tickets about a problem and how they were resolved.

        Use it to learn whether the customer reported an error like this one before.

        Args:
            query: Key words of the problem.
            context: Given by the run.
        """
        found = (await crm.tickets(context.contact_id)).tickets
        await relations.record(context.scope, build_ticket_edges(context.contact_id, found))
        found = [*found, *await _known(memory, context, {ticket.id for ticket in found})]
        related = await _related(memory, context.scope, [ticket.id for ticket in found[:_LOOKED_UP]])
        words = {word for word in query.lower().split() if len(word) > 2}  # noqa: PLR2004 - "in", "of"
        words |= set(topics_of(query))

        def matching(ticket: Ticket) -> int:
            about = " ".join(related.get(ticket.id, ()))
            return _matches(words, f"{ticket.title} {ticket.description} {about}")

        ranked = sorted(found, key=matching, reverse=True)
        return [
            {**ticket.model_dump(exclude_none=True, exclude={"id"}), **_shown(related.get(ticket.id, ()))}
            for ticket in ranked[:MAX_TICKETS]
        ]

    return search


async def _known(memory: Memory, context: CallContext, listed: Collection[str]) -> list[Ticket]:
    """Tickets the graph knows and the CRM does not list, such as those for engineering."""
    try:
        async with asyncio.timeout(GRAPH_SECONDS):
            graph = await memory.query_graph(context.scope, context.contact_id, edge_type=HAS_TICKET)
    except (MemoryUnavailable, MemoryRefused, TimeoutError) as error:
        log.warning("tickets_not_known", reason=str(error))
        return []
    return [
        Ticket(id=edge.target.key, title=edge.target.label, created_at=edge.valid_from.isoformat())
        for edge in graph.edges
        if edge.target.key not in listed
    ]


def _shown(related: Sequence[str]) -> dict[str, Any]:
    return {"related": list(related)} if related else {}


async def _related(memory: Memory, scope: Scope, tickets: Sequence[str]) -> dict[str, Sequence[str]]:
    """What each ticket has an edge to, in words. A memory that is away relates nothing more."""
    related: dict[str, Sequence[str]] = {}
    try:
        async with asyncio.timeout(GRAPH_SECONDS):
            # One after the other: a tool call is no reason to take several of the pool's connections.
            for ticket in tickets:
                found = (await memory.query_graph(scope, ticket)).edges
                edges = [edge for edge in found if edge.type != HAS_TICKET][:MAX_RELATED]
                if edges:
                    related[ticket] = [
                        f"{edge.source.label} {edge.type} {edge.target.label}" for edge in edges
                    ]
    except (MemoryUnavailable, MemoryRefused, TimeoutError) as error:
        log.warning("tickets_not_related", reason=str(error))
    return related


def _matches(words: set[str], text: str) -> int:
    """How many of the words the text has. Sorting is stable, so equals stay newest first."""
    lowered = text.lower()
    return sum(word in lowered for word in words)
