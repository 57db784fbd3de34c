"""What the CRM reads and writes of sales and service."""

from uuid import UUID

from psycopg.types.json import Jsonb

from core.errors import NotFound
from core.postgres import Connection
from dev_crm import store
from dev_crm.errors import OpportunityClosed
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
from dev_crm.schemas import Contact

# One statement, so that of two at once neither undoes what the other writes.
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

# A second change waits for the first, then looks again at what that left: the stage, and every column.
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

# Selecting from the contact makes an unknown one insert nothing.
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


async def update_profile(connection: Connection, contact_id: UUID, changes: ProfileChanges) -> Contact:
    """Keep what was learned of a customer, beside what is known.

    Raises:
        NotFound: The contact does not exist.
    """
    await connection.execute(UPDATE_PROFILE_SQL, {"contact_id": contact_id, **changes.model_dump()})
    return await store.contact(connection, contact_id)


async def opportunities(connection: Connection, contact_id: UUID, *, limit: int) -> list[Opportunity]:
    """Opportunities of a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    await store.contact(connection, contact_id)
    cursor = await connection.execute(
        OPPORTUNITIES_SQL, {"contact_id": contact_id, "id": None, "limit": limit}
    )
    return [Opportunity.model_validate(row) for row in await cursor.fetchall()]


async def opportunity(connection: Connection, contact_id: UUID, opportunity_id: str) -> Opportunity:
    """An opportunity of a contact.

    Raises:
        NotFound: The contact does not exist, or has no such opportunity.
    """
    await store.contact(connection, contact_id)
    cursor = await connection.execute(
        OPPORTUNITIES_SQL, {"contact_id": contact_id, "id": opportunity_id, "limit": 1}
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(
            f"Contact {str(contact_id)!r} has no opportunity {opportunity_id!r}.",
            details={"contact_id": str(contact_id), "opportunity_id": opportunity_id},
        )
    return Opportunity.model_validate(row)


async def update_opportunity(
    connection: Connection, contact_id: UUID, opportunity_id: str, changes: OpportunityChanges
) -> Opportunity:
    """Change what is new of an opportunity, and leave the rest, also where others change it at the same time.

    Nothing to change is no change: its version stays.

    Raises:
        NotFound: The contact does not exist, or has no such opportunity.
        OpportunityClosed: It was won or lost.
    """
    new = changes.model_dump(exclude_none=True)
    if not new:
        return await opportunity(connection, contact_id, opportunity_id)
    parameters: dict[str, object] = {
        **dict.fromkeys(OpportunityChanges.model_fields),
        **new,
        "qualification": Jsonb(new.get("qualification", {})),
        "contact_id": contact_id,
        "id": opportunity_id,
    }
    parameters |= {name: Jsonb(new[name]) for name in ("needs", "objections") if name in new}
    changed = await connection.execute(UPDATE_OPPORTUNITY_SQL, parameters)
    current = await opportunity(connection, contact_id, opportunity_id)
    if not changed.rowcount:
        raise OpportunityClosed(
            f"Opportunity {opportunity_id!r} is closed ({current.stage}): it takes no more changes.",
            details={"opportunity_id": opportunity_id, "stage": current.stage},
        )
    return current


async def orders(connection: Connection, contact_id: UUID, *, limit: int) -> list[Order]:
    """Orders of a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    await store.contact(connection, contact_id)
    cursor = await connection.execute(ORDERS_SQL, {"contact_id": contact_id, "limit": limit})
    return [Order.model_validate(row) for row in await cursor.fetchall()]


async def invoices(connection: Connection, contact_id: UUID, *, limit: int) -> list[Invoice]:
    """Invoices of a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    await store.contact(connection, contact_id)
    cursor = await connection.execute(INVOICES_SQL, {"contact_id": contact_id, "limit": limit})
    return [Invoice.model_validate(row) for row in await cursor.fetchall()]


async def add_follow_up(connection: Connection, contact_id: UUID, new: NewFollowUp) -> FollowUp:
    """Keep a follow-up.

    Raises:
        NotFound: The contact does not exist, or has no such opportunity.
    """
    if new.opportunity_id is not None:
        await opportunity(connection, contact_id, new.opportunity_id)
    parameters = {"contact_id": contact_id, **new.model_dump()}
    row = await (await connection.execute(ADD_FOLLOW_UP_SQL, parameters)).fetchone()
    if row is None:
        raise store.no_contact(contact_id)
    return FollowUp.model_validate(row)


async def follow_ups(connection: Connection, contact_id: UUID, *, limit: int) -> list[FollowUp]:
    """Follow-ups with a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    await store.contact(connection, contact_id)
    cursor = await connection.execute(FOLLOW_UPS_SQL, {"contact_id": contact_id, "limit": limit})
    return [FollowUp.model_validate(row) for row in await cursor.fetchall()]


async def add_handoff(connection: Connection, contact_id: UUID, new: NewHandoff) -> Handoff:
    """Keep a handoff.

    Raises:
        NotFound: The contact does not exist.
    """
    parameters = {"contact_id": contact_id, **new.model_dump()}
    row = await (await connection.execute(ADD_HANDOFF_SQL, parameters)).fetchone()
    if row is None:
        raise store.no_contact(contact_id)
    return Handoff.model_validate(row)


async def handoffs(connection: Connection, contact_id: UUID, *, limit: int) -> list[Handoff]:
    """Handoffs of a contact, newest first.

    Raises:
        NotFound: The contact does not exist.
    """
    await store.contact(connection, contact_id)
    cursor = await connection.execute(HANDOFFS_SQL, {"contact_id": contact_id, "limit": limit})
    return [Handoff.model_validate(row) for row in await cursor.fetchall()]
