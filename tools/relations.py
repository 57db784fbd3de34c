"""How the things in the CRM are related, told to memory as edges of the contact's graph.

``contact HAS_TICKET ticket``, ``ticket ABOUT topic`` and ``contact WORKS_AT company``: seen whenever the CRM
is read or written, so that the graph has them without anybody entering them.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from core.errors import MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Edge, Memory, Node, Scope
from core.memory.vocabulary import find_topics
from core.texts import make_storable
from tools.crm.models import Contact, Ticket

log = get_logger(__name__)

# Nobody waits longer for it; what memory was not told is seen again.
NOTE_SECONDS = 0.5
# So long what memory was told is not told again: it would change nothing, but for what was forgotten since.
TOLD_SECONDS: Final = 600.0
_MOST_REMEMBERED: Final = 10_000
# Of a contact's tickets, the latest.
MOST_TICKETS: Final = 20
# Of a node's name: what memory takes.
_NAME_CHARACTERS: Final = 200

HAS_TICKET: Final = "HAS_TICKET"


class Relations:
    """Tells memory how things are related; never fails, and never holds anybody up for long.

    Args:
        memory: Who is told.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._told: dict[tuple[Scope, Edge], float] = {}

    async def note(self, scope: Scope, edges: Sequence[Edge]) -> None:
        """Tell memory those edges that it was not told lately."""
        now = time.monotonic()
        new = [
            edge for edge in edges if self._told.get((scope, _undated(edge)), -math.inf) < now - TOLD_SECONDS
        ]
        if not new:
            return
        try:
            async with asyncio.timeout(NOTE_SECONDS):
                await self._memory.upsert_edges(scope, new)
        except (MemoryUnavailable, MemoryRefused, TimeoutError) as error:
            log.warning("relations_not_noted", reason=str(error) or "memory did not answer in time")
            return
        if len(self._told) > _MOST_REMEMBERED:
            self._told.clear()
        self._told |= {(scope, _undated(edge)): now for edge in new}


def of_contact(contact: Contact) -> list[Edge]:
    """Where a contact works. The CRM does not say since when: since the day it is first seen."""
    if not (company := _name(contact.company or "")):
        return []
    seen = datetime.now(UTC)
    edge = Edge(
        source=_person(contact.id, contact.name),
        type="WORKS_AT",
        target=Node("company", company.casefold(), company),
        valid_from=seen,
        valid_to=None,
        # A day says it once; who comes back to a company is there again on a later day.
        source_message_id=f"crm:contact:{seen.date().isoformat()}",
    )
    return [edge]


def of_tickets(contact_id: str, tickets: Sequence[Ticket], *, name: str = "") -> list[Edge]:
    """Whose tickets they are, and what they are about, since they were opened.

    Args:
        contact_id: Whose.
        tickets: The latest first.
        name: What people call the contact; empty: not known here.
    """
    person = _person(contact_id, name)
    return [edge for ticket in tickets[:MOST_TICKETS] for edge in _of_ticket(person, ticket)]


def _of_ticket(person: Node, ticket: Ticket) -> list[Edge]:
    key, title = _name(ticket.id), _name(ticket.title)
    if not (key and title):
        return []
    node, opened = Node("ticket", key, title), _opened(ticket)
    related = [(person, HAS_TICKET, node)]
    related += [
        (node, "ABOUT", Node("topic", topic, topic))
        for topic in find_topics(f"{ticket.title} {ticket.description or ''}")
    ]
    return [
        Edge(
            source=source,
            type=kind,
            target=target,
            valid_from=opened,
            valid_to=None,
            source_message_id=f"crm:ticket:{key}"[:_NAME_CHARACTERS],
        )
        for source, kind, target in related
    ]


def _opened(ticket: Ticket) -> datetime:
    """When it was opened, as far as the CRM says; never later than now."""
    now = datetime.now(UTC)
    try:
        opened = datetime.fromisoformat(ticket.created_at or "")
    except ValueError:
        return now
    return min(opened if opened.tzinfo else opened.replace(tzinfo=UTC), now)


def _person(contact_id: str, name: str) -> Node:
    return Node("contact", _name(contact_id), _name(name) or _name(contact_id))


def _name(text: str) -> str:
    return make_storable(" ".join(text.split()))[:_NAME_CHARACTERS]


def _undated(edge: Edge) -> Edge:
    """What is said, whenever it is seen."""
    return replace(edge, valid_from=datetime.min.replace(tzinfo=UTC))
