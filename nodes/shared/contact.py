"""What is known of the contact a run is about."""

import asyncio
from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from core.errors import CrmError, CrmRefused, NotFound
from core.logging import get_logger
from core.memory import Edge
from nodes.deps import Deps
from tools.crm.models import Contact, Ticket
from tools.relations import build_contact_edges, build_ticket_edges

log = get_logger(__name__)


class ContactContext(TypedDict):
    """Plain JSON: the contact, their subscription, their latest tickets."""

    contact: dict[str, Any]
    subscription: dict[str, Any] | None
    recent_tickets: list[dict[str, Any]]


RECENT_TICKETS = 3
# The customer waits, and an agent can ask the CRM itself: better an answer without than a late one.
RECALL_SECONDS = 3.0


async def recalled_contact(deps: Deps, contact_id: str) -> ContactContext | None:
    """The same within :data:`RECALL_SECONDS`; None from a CRM that is away, or does not know them."""
    try:
        async with asyncio.timeout(RECALL_SECONDS):
            return await contact_context(deps, contact_id)
    except (CrmError, NotFound, TimeoutError) as error:
        log.warning("customer_not_recalled", contact_id=contact_id, reason=str(error))
        return None


async def contact_context(deps: Deps, contact_id: str) -> ContactContext:
    """Read it from the CRM. A contact without a subscription or tickets has none here.

    Raises:
        NotFound: The CRM does not know the contact.
        CrmUnavailable: The CRM stayed away.
    """
    try:
        contact = await deps.crm.get_contact(contact_id)
    except CrmRefused as refusal:
        raise NotFound(
            f"the CRM does not know contact {contact_id!r}", details={"contact_id": contact_id}
        ) from refusal
    return ContactContext(
        contact=contact.model_dump(exclude_none=True),
        subscription=await _subscription(deps, contact_id),
        recent_tickets=await _tickets(deps, contact_id),
    )


def relations_of(known: Mapping[str, Any]) -> list[Edge]:
    """How the contact, where they work and their tickets are related."""
    contact = Contact.model_validate(known["contact"])
    tickets = [Ticket.model_validate(ticket) for ticket in known["recent_tickets"]]
    return [*build_contact_edges(contact), *build_ticket_edges(contact.id, tickets, name=contact.name)]


async def _subscription(deps: Deps, contact_id: str) -> dict[str, Any] | None:
    try:
        return (await deps.crm.get_subscription(contact_id)).model_dump(exclude_none=True)
    except CrmRefused:
        return None


async def _tickets(deps: Deps, contact_id: str) -> list[dict[str, Any]]:
    try:
        found = await deps.crm.list_tickets(contact_id)
    except CrmRefused:
        return []
    return [ticket.model_dump(exclude_none=True) for ticket in found.tickets[:RECENT_TICKETS]]
