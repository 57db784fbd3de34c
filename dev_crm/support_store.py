"""Read and write contacts, subscriptions, tickets, articles, the status page and messages."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from core.errors import NotFound
from core.postgres import Connection
from dev_crm.support_schemas import (
    Article,
    ArticleRevision,
    ArticleRevisions,
    Component,
    ComponentStatus,
    Contact,
    ContactOverview,
    EngineeringTicket,
    Incident,
    Message,
    NewEngineeringTicket,
    NewMessage,
    Status,
    Subscription,
    Ticket,
)

# The newest tickets that a contact is returned with.
INCLUDED_TICKETS = 20

CONTACT_SQL = """
SELECT id, name, email, phone, company, role, language, timezone, created_at,
    coalesce(to_jsonb(profiles), '{}') AS profile
FROM crm.contacts LEFT JOIN crm.profiles ON profiles.contact_id = contacts.id
WHERE id = %(contact_id)s
"""

SUBSCRIPTION_SQL = """
SELECT contact_id, plan, product_version, status, seats, usage, monthly_amount, currency, billing_cycle,
    started_on, renews_on
FROM crm.subscriptions WHERE contact_id = %(contact_id)s
"""

TICKETS_SQL = """
SELECT id, title, description, status, severity, resolution, created_at, resolved_at
FROM crm.tickets
WHERE contact_id = %(contact_id)s
    AND (%(q)s = '' OR search @@ crm.any_of(
        CASE language WHEN 'pt' THEN 'portuguese'::regconfig ELSE 'english'::regconfig END, %(q)s))
ORDER BY created_at DESC, id
LIMIT %(limit)s
"""

# Any word may match, in the article's language. A word counts for more the fewer articles of that language
# contain it (inverse document frequency), and by where it occurs: title, body, tags. The sum is multiplied by
# the share of the query's words that the article contains, which favours articles in the query's language.
# ts_rank over the whole query ranks worse on few articles: it weighs a word that every article has as much
# as a word that only one has.
SEARCH_ARTICLES_SQL = """
WITH languages AS (
    SELECT language, config, count(*) AS size
    FROM (VALUES ('en', 'english'::regconfig), ('pt', 'portuguese'::regconfig)) AS known (language, config)
    JOIN crm.articles USING (language) GROUP BY language, config
), terms AS (
    SELECT language, size, crm.term(lexeme) AS term, count(*) OVER (PARTITION BY language) AS terms
    FROM languages CROSS JOIN unnest(tsvector_to_array(to_tsvector(config, %(q)s))) AS lexeme
), hits AS (
    -- 1: divide by the logarithm of the article's length.
    SELECT articles.id, terms, ts_rank(search, term, 1) AS rank,
        ln(1 + size::float8 / count(*) OVER (PARTITION BY language, term)) AS rarity
    FROM terms JOIN crm.articles USING (language) WHERE search @@ term
), ranked AS (
    SELECT id, sum(rank * rarity) * count(*) / max(terms) AS score
    FROM hits GROUP BY id ORDER BY score DESC, id LIMIT %(limit)s
)
SELECT id, title, body, tags, language, round(score::numeric, 4)::float8 AS score, updated_at
FROM ranked JOIN crm.articles USING (id)
ORDER BY ranked.score DESC, id
"""

LIST_ARTICLES_SQL = """
SELECT id, title, body, tags, language, updated_at FROM crm.articles
WHERE id > %(after)s AND updated_at >= coalesce(%(updated_since)s, '-infinity'::timestamptz)
ORDER BY id LIMIT %(limit)s
"""
COUNT_ARTICLES_SQL = "SELECT count(*) AS total FROM crm.articles"

COMPONENTS_SQL = "SELECT name, status, since FROM crm.components ORDER BY name"

INCIDENTS_SQL = """
SELECT id, title, component, status, started_at, resolved_at, summary
FROM crm.incidents ORDER BY started_at DESC, id
"""

# Selecting from the contacts inserts nothing for an unknown contact.
ADD_ENGINEERING_TICKET_SQL = """
INSERT INTO crm.engineering_tickets (contact_id, title, description, severity, source)
SELECT id, %(title)s, %(description)s, %(severity)s, %(source)s FROM crm.contacts WHERE id = %(contact_id)s
RETURNING id, contact_id, title, description, severity, status, source, created_at
"""

ENGINEERING_TICKETS_SQL = """
SELECT id, contact_id, title, description, severity, status, source, created_at
FROM crm.engineering_tickets
WHERE %(contact_id)s::uuid IS NULL OR contact_id = %(contact_id)s
ORDER BY created_at DESC, id
LIMIT %(limit)s
"""

ADD_MESSAGE_SQL = """
INSERT INTO crm.messages (contact_id, text, from_me, source, author)
SELECT id, %(text)s, %(from_me)s, %(source)s, %(author)s FROM crm.contacts WHERE id = %(contact_id)s
RETURNING id, contact_id, text, from_me, source, author, created_at
"""

MESSAGES_SQL = """
SELECT id, contact_id, text, from_me, source, author, created_at
FROM crm.messages
WHERE %(contact_id)s::uuid IS NULL OR contact_id = %(contact_id)s
ORDER BY created_at DESC, id
LIMIT %(limit)s
"""

_BEST_TO_WORST: tuple[ComponentStatus, ...] = ("operational", "degraded", "outage")

Model = TypeVar("Model", bound=BaseModel)


async def fetch_one(
    connection: Connection, statement: str, parameters: Mapping[str, Any], model: type[Model]
) -> Model | None:
    """Return the first row of a query as a model, or ``None`` when there is none."""
    row = await (await connection.execute(statement, parameters)).fetchone()
    return None if row is None else model.model_validate(row)


async def fetch_all(
    connection: Connection, statement: str, parameters: Mapping[str, Any], model: type[Model]
) -> list[Model]:
    """Return all rows of a query as models."""
    return list(map(model.model_validate, await (await connection.execute(statement, parameters)).fetchall()))


def contact_not_found(contact_id: UUID) -> NotFound:
    """Return the error to raise when no contact has this id."""
    return NotFound(f"There is no contact {str(contact_id)!r}.", details={"contact_id": str(contact_id)})


async def get_contact(connection: Connection, contact_id: UUID) -> Contact:
    """Return the contact.

    Raises:
        NotFound: There is none with this id.
    """
    contact = await fetch_one(connection, CONTACT_SQL, {"contact_id": contact_id}, Contact)
    if contact is None:
        raise contact_not_found(contact_id)
    return contact


async def get_overview(
    connection: Connection, contact_id: UUID, *, include: Collection[str]
) -> ContactOverview:
    """Return a contact, with ``subscription`` and the newest ``tickets`` where these are to be included.

    Raises:
        NotFound: There is no such contact.
    """
    contact = await get_contact(connection, contact_id)
    overview = ContactOverview.model_construct(**dict(contact))
    parameters = {"contact_id": contact_id, "q": "", "limit": INCLUDED_TICKETS}
    if "subscription" in include:
        overview.subscription = await fetch_one(connection, SUBSCRIPTION_SQL, parameters, Subscription)
    if "tickets" in include:
        overview.tickets = await fetch_all(connection, TICKETS_SQL, parameters, Ticket)
    return overview


async def get_subscription(connection: Connection, contact_id: UUID) -> Subscription:
    """Return the subscription of a contact.

    Raises:
        NotFound: The contact does not exist or has no subscription.
    """
    await get_contact(connection, contact_id)
    subscription = await fetch_one(connection, SUBSCRIPTION_SQL, {"contact_id": contact_id}, Subscription)
    if subscription is None:
        raise NotFound(
            f"Contact {str(contact_id)!r} has no subscription.", details={"contact_id": str(contact_id)}
        )
    return subscription


async def list_tickets(connection: Connection, contact_id: UUID, *, q: str, limit: int) -> list[Ticket]:
    """Return tickets of a contact, newest first; with ``q``, those that contain any of its words.

    Raises:
        NotFound: The contact does not exist.
    """
    await get_contact(connection, contact_id)
    parameters = {"contact_id": contact_id, "q": q, "limit": limit}
    return await fetch_all(connection, TICKETS_SQL, parameters, Ticket)


async def search_articles(connection: Connection, q: str, *, limit: int) -> list[Article]:
    """Return the articles that contain any word of ``q``, best match first."""
    return await fetch_all(connection, SEARCH_ARTICLES_SQL, {"q": q, "limit": limit}, Article)


async def list_articles(
    connection: Connection, *, updated_since: datetime | None, after: str, limit: int
) -> ArticleRevisions:
    """Return a page of the articles that changed at a time or later, by id."""
    parameters = {"updated_since": updated_since, "after": after, "limit": limit + 1}
    articles = await fetch_all(connection, LIST_ARTICLES_SQL, parameters, ArticleRevision)
    row = await (await connection.execute(COUNT_ARTICLES_SQL)).fetchone()
    page = articles[:limit]
    return ArticleRevisions(
        articles=page, total=row["total"] if row else 0, next=page[-1].id if len(articles) > limit else None
    )


async def get_status(connection: Connection) -> Status:
    """Return the status page."""
    components = await fetch_all(connection, COMPONENTS_SQL, {}, Component)
    incidents = await fetch_all(connection, INCIDENTS_SQL, {}, Incident)
    statuses = (component.status for component in components)
    worst = max(statuses, key=_BEST_TO_WORST.index, default="operational")
    return Status(status=worst, components=components, incidents=incidents)


async def add_engineering_ticket(connection: Connection, new: NewEngineeringTicket) -> EngineeringTicket:
    """Store an engineering ticket.

    Raises:
        NotFound: The contact does not exist.
    """
    ticket = await fetch_one(connection, ADD_ENGINEERING_TICKET_SQL, new.model_dump(), EngineeringTicket)
    if ticket is None:
        raise contact_not_found(new.contact_id)
    return ticket


async def list_engineering_tickets(
    connection: Connection, contact_id: UUID | None, *, limit: int
) -> list[EngineeringTicket]:
    """Return engineering tickets, newest first: a contact's, or everyone's.

    Raises:
        NotFound: The contact does not exist.
    """
    if contact_id is not None:
        await get_contact(connection, contact_id)
    parameters = {"contact_id": contact_id, "limit": limit}
    return await fetch_all(connection, ENGINEERING_TICKETS_SQL, parameters, EngineeringTicket)


async def add_message(connection: Connection, new: NewMessage) -> Message:
    """Store a message.

    Raises:
        NotFound: The contact does not exist.
    """
    message = await fetch_one(connection, ADD_MESSAGE_SQL, new.model_dump(), Message)
    if message is None:
        raise contact_not_found(new.contact_id)
    return message


async def list_messages(connection: Connection, contact_id: UUID | None, *, limit: int) -> list[Message]:
    """Return messages, newest first: a contact's, or everyone's.

    Raises:
        NotFound: The contact does not exist.
    """
    if contact_id is not None:
        await get_contact(connection, contact_id)
    return await fetch_all(connection, MESSAGES_SQL, {"contact_id": contact_id, "limit": limit}, Message)
