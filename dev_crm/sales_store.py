"""Read and write profiles, opportunities, orders, invoices, follow-ups and handoffs."""

from uuid import UUID

from psycopg.types.json import Jsonb

from core.errors import NotFound
from core.postgres import Connection
from dev_crm.api import OpportunityClosed
from dev_crm.sales_schemas import (
    FollowUp,
    Handoff,
    Invoice,
    NewFollowUp,
    NewHandoff,
    Opportunity,
    OpportunityChanges,
    Order,
    ProfileChanges,
)
from dev_crm.support_schemas import Contact
from dev_crm.support_store import Model, contact_not_found, fetch_all, fetch_one, get_contact

# One statement, so that two concurrent updates do not undo each other.
UPDATE_PROFILE_SQL = """
INSERT INTO crm.profiles AS old (contact_id, company_size, industry, use_case, team_size)
SELECT id, %(company_size)s, %(industry)s, %(use_case)s, %(team_size)s
FROM crm.contacts WHERE id = %(contact_id)s
ON CONFLICT (contact_id) DO UPDATE SET
    company_size = coalesce(excluded.company_size, old.company_size),
    industry = coalesce(excluded.industry, old.industry),
    use_case = coalesce(excluded.use_case, old.use_case),
    team_size = coalesce(excluded.team_size, old.team_size)
"""

OPPORTUNITIES_SQL = """
SELECT id, contact_id, title, stage, value, currency, qualification, needs, solution, objections, proposal,
    terms, next_action, close_reason, created_at, updated_at, version
FROM crm.opportunities
WHERE contact_id = %(contact_id)s AND (%(id)s::text IS NULL OR id = %(id)s)
ORDER BY created_at DESC, id
LIMIT %(limit)s
"""

# A concurrent change waits for the first, then sees the stage and every column as that one left them.
UPDATE_OPPORTUNITY_SQL = """
UPDATE crm.opportunities SET
    title = coalesce(%(title)s, title),
    stage = coalesce(%(stage)s, stage),
    value = coalesce(%(value)s, value),
    currency = coalesce(%(currency)s, currency),
    qualification = qualification || %(qualification)s,
    needs = coalesce(%(needs)s, needs),
    solution = coalesce(%(solution)s, solution),
    objections = coalesce(%(objections)s, objections),
    proposal = coalesce(%(proposal)s, proposal),
    terms = coalesce(%(terms)s, terms),
    next_action = coalesce(%(next_action)s, next_action),
    close_reason = coalesce(%(close_reason)s, close_reason),
    updated_at = clock_timestamp(),
    version = version + 1
WHERE contact_id = %(contact_id)s AND id = %(id)s AND stage NOT IN ('closed_won', 'closed_lost')
"""

ORDERS_SQL = """
SELECT id, contact_id, item, status, placed_at, expected_at, tracking
FROM crm.orders WHERE contact_id = %(contact_id)s
ORDER BY placed_at DESC, id
LIMIT %(limit)s
"""

INVOICES_SQL = """
SELECT id, contact_id, number, status, amount, currency, issued_at, due_at, paid_at
FROM crm.invoices WHERE contact_id = %(contact_id)s
ORDER BY issued_at DESC, id
LIMIT %(limit)s
"""

# Selecting from the contacts inserts nothing for an unknown contact.
ADD_FOLLOW_UP_SQL = """
INSERT INTO crm.follow_ups (contact_id, due_at, subject, note, opportunity_id, source)
SELECT id, %(due_at)s, %(subject)s, %(note)s, %(opportunity_id)s, %(source)s
FROM crm.contacts WHERE id = %(contact_id)s
RETURNING id, contact_id, due_at, subject, note, opportunity_id, source, created_at
"""

FOLLOW_UPS_SQL = """
SELECT id, contact_id, due_at, subject, note, opportunity_id, source, created_at
FROM crm.follow_ups WHERE contact_id = %(contact_id)s
ORDER BY created_at DESC, id
LIMIT %(limit)s
"""

ADD_HANDOFF_SQL = """
INSERT INTO crm.handoffs (contact_id, team, reason, summary, source)
SELECT id, %(team)s, %(reason)s, %(summary)s, %(source)s FROM crm.contacts WHERE id = %(contact_id)s
RETURNING id, contact_id, team, reason, summary, source, created_at
"""

HANDOFFS_SQL = """
SELECT id, contact_id, team, reason, summary, source, created_at
FROM crm.handoffs WHERE contact_id = %(contact_id)s
ORDER BY created_at DESC, id
LIMIT %(limit)s
"""


async def _list_for_contact(
    connection: Connection, statement: str, contact_id: UUID, model: type[Model], *, limit: int
) -> list[Model]:
    """Return the contact's rows as models.

    Raises:
        NotFound: The contact does not exist.
    """
    await get_contact(connection, contact_id)
    parameters = {"contact_id": contact_id, "id": None, "limit": limit}
    return await fetch_all(connection, statement, parameters, model)


async def update_profile(connection: Connection, contact_id: UUID, changes: ProfileChanges) -> Contact:
    """Add what was learned about a customer to the profile; ``None`` leaves a field as it is.

    Raises:
        NotFound: The contact does not exist.
    """
    await connection.execute(UPDATE_PROFILE_SQL, {"contact_id": contact_id, **changes.model_dump()})
    return await get_contact(connection, contact_id)


async def list_opportunities(connection: Connection, contact_id: UUID, *, limit: int) -> list[Opportunity]:
    """Return opportunities of a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    return await _list_for_contact(connection, OPPORTUNITIES_SQL, contact_id, Opportunity, limit=limit)


async def get_opportunity(connection: Connection, contact_id: UUID, opportunity_id: str) -> Opportunity:
    """Return an opportunity of a contact.

    Raises:
        NotFound: The contact does not exist, or has no such opportunity.
    """
    await get_contact(connection, contact_id)
    parameters = {"contact_id": contact_id, "id": opportunity_id, "limit": 1}
    opportunity = await fetch_one(connection, OPPORTUNITIES_SQL, parameters, Opportunity)
    if opportunity is None:
        raise NotFound(
            f"Contact {str(contact_id)!r} has no opportunity {opportunity_id!r}.",
            details={"contact_id": str(contact_id), "opportunity_id": opportunity_id},
        )
    return opportunity


async def update_opportunity(
    connection: Connection, contact_id: UUID, opportunity_id: str, changes: OpportunityChanges
) -> Opportunity:
    """Change the given fields of an opportunity, and leave the others to concurrent changes.

    Without anything to change, its version stays the same.

    Raises:
        NotFound: The contact does not exist, or has no such opportunity.
        OpportunityClosed: It was won or lost.
    """
    new = changes.model_dump(exclude_none=True)
    if not new:
        return await get_opportunity(connection, contact_id, opportunity_id)
    parameters: dict[str, object] = {
        **dict.fromkeys(OpportunityChanges.model_fields),
        **new,
        "qualification": Jsonb(new.get("qualification", {})),
        "contact_id": contact_id,
        "id": opportunity_id,
    }
    parameters |= {name: Jsonb(new[name]) for name in ("needs", "objections") if name in new}
    changed = await connection.execute(UPDATE_OPPORTUNITY_SQL, parameters)
    current = await get_opportunity(connection, contact_id, opportunity_id)
    if not changed.rowcount:
        raise OpportunityClosed(
            f"Opportunity {opportunity_id!r} is closed ({current.stage}) and cannot be changed.",
            details={"opportunity_id": opportunity_id, "stage": current.stage},
        )
    return current


async def list_orders(connection: Connection, contact_id: UUID, *, limit: int) -> list[Order]:
    """Return orders of a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    return await _list_for_contact(connection, ORDERS_SQL, contact_id, Order, limit=limit)


async def list_invoices(connection: Connection, contact_id: UUID, *, limit: int) -> list[Invoice]:
    """Return invoices of a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    return await _list_for_contact(connection, INVOICES_SQL, contact_id, Invoice, limit=limit)


async def add_follow_up(connection: Connection, contact_id: UUID, new: NewFollowUp) -> FollowUp:
    """Store a follow-up.

    Raises:
        NotFound: The contact does not exist, or has no such opportunity.
    """
    if new.opportunity_id is not None:
        await get_opportunity(connection, contact_id, new.opportunity_id)
    parameters = {"contact_id": contact_id, **new.model_dump()}
    follow_up = await fetch_one(connection, ADD_FOLLOW_UP_SQL, parameters, FollowUp)
    if follow_up is None:
        raise contact_not_found(contact_id)
    return follow_up


async def list_follow_ups(connection: Connection, contact_id: UUID, *, limit: int) -> list[FollowUp]:
    """Return follow-ups with a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    return await _list_for_contact(connection, FOLLOW_UPS_SQL, contact_id, FollowUp, limit=limit)


async def add_handoff(connection: Connection, contact_id: UUID, new: NewHandoff) -> Handoff:
    """Store a handoff.

    Raises:
        NotFound: The contact does not exist.
    """
    parameters = {"contact_id": contact_id, **new.model_dump()}
    handoff = await fetch_one(connection, ADD_HANDOFF_SQL, parameters, Handoff)
    if handoff is None:
        raise contact_not_found(contact_id)
    return handoff


async def list_handoffs(connection: Connection, contact_id: UUID, *, limit: int) -> list[Handoff]:
    """Return handoffs of a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    return await _list_for_contact(connection, HANDOFFS_SQL, contact_id, Handoff, limit=limit)
