"""The CRM's profile of the contact a run is about."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from typing_extensions import TypedDict

from core import deadline
from core.errors import CrmError, CrmRefused, NotFound
from core.logging import get_logger
from core.memory import Edge
from nodes.deps import Deps
from nodes.shared.prompts import find_zone
from tools.crm.models import Contact, Ticket
from tools.relations import build_contact_edges, build_ticket_edges

log = get_logger(__name__)

RECENT_TICKETS = 3
# The customer waits and an agent can ask the CRM itself, so a late profile is done without.
LOAD_SECONDS = 3.0


class ContactProfile(TypedDict):
    """Plain JSON: the contact, their subscription and their latest tickets."""

    contact: dict[str, Any]
    subscription: dict[str, Any] | None
    recent_tickets: list[dict[str, Any]]


_shared_profile: ContextVar[ContactProfile | None] = ContextVar("shared_contact_profile", default=None)


@contextmanager
def share_contact_profile(profile: ContactProfile | None) -> Iterator[None]:
    """Have the subgraphs called inside use a profile that was read just now, instead of asking the CRM."""
    token = _shared_profile.set(profile)
    try:
        yield
    finally:
        _shared_profile.reset(token)


async def load_contact_profile(deps: Deps, contact_id: str) -> ContactProfile:
    """Read the profile from the CRM, with ``None`` or ``[]`` for what the contact does not have.

    Inside :func:`share_contact_profile` the shared profile is returned instead.

    Raises:
        NotFound: The CRM does not know the contact.
        CrmUnavailable: The CRM did not answer.
    """
    shared = _shared_profile.get()
    if shared is not None and shared["contact"]["id"] == contact_id:
        return shared
    try:
        found = await deps.crm.get_contact_overview(contact_id)
    except CrmRefused as refusal:
        raise NotFound(
            f"the CRM does not know contact {contact_id!r}", details={"contact_id": contact_id}
        ) from refusal
    values = found.model_dump(exclude_none=True)
    tickets = values.pop("tickets", [])
    subscription = values.pop("subscription", None)
    profile = ContactProfile(
        contact=values, subscription=subscription, recent_tickets=tickets[:RECENT_TICKETS]
    )
    # Prompts need the zone: its file is read here, and not in the event loop.
    await asyncio.to_thread(find_zone, get_time_zone(profile))
    return profile


async def try_load_contact_profile(deps: Deps, contact_id: str) -> ContactProfile | None:
    """Read the profile within :data:`LOAD_SECONDS`; ``None`` if the CRM is unavailable or has none."""
    try:
        async with deadline.timeout(LOAD_SECONDS):
            return await load_contact_profile(deps, contact_id)
    except (CrmError, NotFound, TimeoutError) as error:
        log.warning("contact_profile_not_loaded", reason=str(error))
        return None


def get_time_zone(profile: Mapping[str, Any] | None) -> str:
    """Return the IANA name of the contact's time zone; empty if the CRM does not know it."""
    return str(profile["contact"].get("timezone") or "") if profile else ""


def extract_relations(profile: Mapping[str, Any]) -> list[Edge]:
    """Return the graph edges between the contact, their company and their tickets."""
    contact = Contact.model_validate(profile["contact"])
    tickets = [Ticket.model_validate(ticket) for ticket in profile["recent_tickets"]]
    return [*build_contact_edges(contact), *build_ticket_edges(contact.id, tickets, name=contact.name)]
