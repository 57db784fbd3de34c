"""Relations between things in the CRM, recorded in memory as edges of the contact's graph.

``contact HAS_TICKET ticket``, ``ticket ABOUT topic`` and ``contact WORKS_AT company`` are recorded whenever
the CRM is read or written, so that the graph has them without anybody entering them.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, Final

from core.errors import MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Edge, Memory, Node, Scope
from core.memory.vocabulary import find_topics
from core.texts import make_storable
from tools.crm.models import Contact, Ticket

log = get_logger(__name__)

# Recording holds nobody up for longer; an edge that was not recorded is seen again later.
RECORD_SECONDS = 0.5
# An edge is not recorded again within this time: it would change nothing unless it was forgotten since.
REPEAT_SECONDS: Final = 600.0
MAX_CACHED_EDGES: Final = 10_000
# The latest tickets of a contact whose edges are recorded.
MAX_RECORDED_TICKETS: Final = 20
# The longest name of a node that memory accepts.
_MAX_NAME_CHARACTERS: Final = 200

HAS_TICKET: Final = "HAS_TICKET"


class RelationRecorder:
    """Records edges in memory; never fails, and takes at most :data:`RECORD_SECONDS`.

    Args:
        memory: Where edges are recorded.
    """

    # When each edge was last recorded, oldest first. All recorders of the process share it, since each
    # tool and graph has its own.
    _recorded: ClassVar[dict[tuple[Memory, Scope, Edge], float]] = {}

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def record(self, scope: Scope, edges: Sequence[Edge]) -> None:
        """Record the edges that were not recorded lately."""
        now = time.monotonic()
        new = [edge for edge in edges if self._last_recorded(scope, edge) < now - REPEAT_SECONDS]
        if not new:
            return
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                await self._memory.upsert_edges(scope, new)
        except (MemoryUnavailable, MemoryRefused, TimeoutError) as error:
            log.warning("relations_not_recorded", reason=str(error) or "memory did not answer in time")
            return
        for edge in new:
            key = (self._memory, scope, _strip_date(edge))
            self._recorded.pop(key, None)
            self._recorded[key] = now
        while len(self._recorded) > MAX_CACHED_EDGES:
            del self._recorded[next(iter(self._recorded))]

    def _last_recorded(self, scope: Scope, edge: Edge) -> float:
        return self._recorded.get((self._memory, scope, _strip_date(edge)), -math.inf)


def build_contact_edges(contact: Contact) -> list[Edge]:
    """Return where a contact works, valid from now on because the CRM does not say since when."""
    if not (company := _clean_name(contact.company or "")):
        return []
    now = datetime.now(UTC)
    edge = Edge(
        source=_build_person(contact.id, contact.name),
        type="WORKS_AT",
        target=Node("company", company.casefold(), company),
        valid_from=now,
        valid_to=None,
        # One message id per day: a contact who returns to a company gets a new edge on a later day.
        source_message_id=f"crm:contact:{now.date().isoformat()}",
    )
    return [edge]


def build_ticket_edges(contact_id: str, tickets: Sequence[Ticket], *, name: str = "") -> list[Edge]:
    """Return whose tickets they are and what they are about, valid since they were opened.

    Args:
        contact_id: The contact whose tickets they are.
        tickets: The latest first; those beyond :data:`MAX_RECORDED_TICKETS` are left out.
        name: The contact's name; empty if it is not known here.
    """
    person = _build_person(contact_id, name)
    return [edge for ticket in tickets[:MAX_RECORDED_TICKETS] for edge in _build_edges(person, ticket)]


def _build_edges(person: Node, ticket: Ticket) -> list[Edge]:
    key, title = _clean_name(ticket.id), _clean_name(ticket.title)
    if not (key and title):
        return []
    node, opened_at = Node("ticket", key, title), _get_opening_time(ticket)
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
            valid_from=opened_at,
            valid_to=None,
            source_message_id=f"crm:ticket:{key}"[:_MAX_NAME_CHARACTERS],
        )
        for source, kind, target in related
    ]


def _get_opening_time(ticket: Ticket) -> datetime:
    """Return when the ticket was opened, or now when the CRM does not say; never later than now."""
    now = datetime.now(UTC)
    try:
        opened_at = datetime.fromisoformat(ticket.created_at or "")
    except ValueError:
        return now
    return min(opened_at if opened_at.tzinfo else opened_at.replace(tzinfo=UTC), now)


def _build_person(contact_id: str, name: str) -> Node:
    return Node("contact", _clean_name(contact_id), _clean_name(name) or _clean_name(contact_id))


def _clean_name(text: str) -> str:
    return make_storable(" ".join(text.split()))[:_MAX_NAME_CHARACTERS]


def _strip_date(edge: Edge) -> Edge:
    """Return the edge without the time it was seen, so that the same relation compares equal."""
    return replace(edge, valid_from=datetime.min.replace(tzinfo=UTC))
