"""What the CRM reads and writes."""

from uuid import UUID

from core.errors import NotFound
from core.postgres import Connection
from dev_crm.schemas import (
    Article,
    Component,
    ComponentStatus,
    Contact,
    EngineeringTicket,
    Incident,
    Message,
    NewEngineeringTicket,
    NewMessage,
    Status,
    Subscription,
    Ticket,
)

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

# Any word may match, in the language of the article. A word counts for more the fewer of the language's
# articles have it (inverse document frequency), and by where it stands: title, body, tags. The sum is
# multiplied by the share of the query's words that the article has: a query in one language has few words
# that the other knows. On a handful of articles this ranks better than ts_rank over the whole query,
# where a word that every article has weighs as much as one that a single article has.
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

COMPONENTS_SQL = "SELECT name, status, since FROM crm.components ORDER BY name"

INCIDENTS_SQL = """
SELECT id, title, component, status, started_at, resolved_at, summary
FROM crm.incidents ORDER BY started_at DESC, id
"""

# Selecting from the contact makes an unknown one insert nothing.
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
INSERT INTO crm.messages (contact_id, text, from_me, source)
SELECT id, %(text)s, %(from_me)s, %(source)s FROM crm.contacts WHERE id = %(contact_id)s
RETURNING id, contact_id, text, from_me, source, created_at
"""

MESSAGES_SQL = """
SELECT id, contact_id, text, from_me, source, created_at
FROM crm.messages
WHERE %(contact_id)s::uuid IS NULL OR contact_id = %(contact_id)s
ORDER BY created_at DESC, id
LIMIT %(limit)s
"""

_FROM_BEST_TO_WORST: tuple[ComponentStatus, ...] = ("operational", "degraded", "outage")


async def contact(connection: Connection, contact_id: UUID) -> Contact:
    """The contact.

    Raises:
        NotFound: There is none with this id.
    """
    row = await (await connection.execute(CONTACT_SQL, {"contact_id": contact_id})).fetchone()
    if row is None:
        raise no_contact(contact_id)
    return Contact.model_validate(row)


async def subscription(connection: Connection, contact_id: UUID) -> Subscription:
    """The subscription of a contact.

    Raises:
        NotFound: The contact does not exist or has no subscription.
    """
    await contact(connection, contact_id)
    row = await (await connection.execute(SUBSCRIPTION_SQL, {"contact_id": contact_id})).fetchone()
    if row is None:
        raise NotFound(
            f"Contact {str(contact_id)!r} has no subscription.", details={"contact_id": str(contact_id)}
        )
    return Subscription.model_validate(row)


async def tickets(connection: Connection, contact_id: UUID, *, q: str, limit: int) -> list[Ticket]:
    """Tickets of a contact, newest first; with ``q``, those that have any of its words.

    Raises:
        NotFound: The contact does not exist.
    """
    await contact(connection, contact_id)
    cursor = await connection.execute(TICKETS_SQL, {"contact_id": contact_id, "q": q, "limit": limit})
    return [Ticket.model_validate(row) for row in await cursor.fetchall()]


async def search_articles(connection: Connection, q: str, *, limit: int) -> list[Article]:
    """Articles that have any word of ``q``, best first."""
    cursor = await connection.execute(SEARCH_ARTICLES_SQL, {"q": q, "limit": limit})
    return [Article.model_validate(row) for row in await cursor.fetchall()]


async def status(connection: Connection) -> Status:
    """The status page."""
    components = [
        Component.model_validate(row) for row in await (await connection.execute(COMPONENTS_SQL)).fetchall()
    ]
    incidents = [
        Incident.model_validate(row) for row in await (await connection.execute(INCIDENTS_SQL)).fetchall()
    ]
    statuses = (component.status for component in components)
    worst = max(statuses, key=_FROM_BEST_TO_WORST.index, default="operational")
    return Status(status=worst, components=components, incidents=incidents)


async def add_engineering_ticket(connection: Connection, new: NewEngineeringTicket) -> EngineeringTicket:
    """Keep an engineering ticket.

    Raises:
        NotFound: The contact does not exist.
    """
    row = await (await connection.execute(ADD_ENGINEERING_TICKET_SQL, new.model_dump())).fetchone()
    if row is None:
        raise no_contact(new.contact_id)
    return EngineeringTicket.model_validate(row)


async def engineering_tickets(
    connection: Connection, contact_id: UUID | None, *, limit: int
) -> list[EngineeringTicket]:
    """Engineering tickets, newest first: a contact's, or everyone's.

    Raises:
        NotFound: The contact does not exist.
    """
    if contact_id is not None:
        await contact(connection, contact_id)
    cursor = await connection.execute(ENGINEERING_TICKETS_SQL, {"contact_id": contact_id, "limit": limit})
    return [EngineeringTicket.model_validate(row) for row in await cursor.fetchall()]


async def add_message(connection: Connection, new: NewMessage) -> Message:
    """Keep a message.

    Raises:
        NotFound: The contact does not exist.
    """
    row = await (await connection.execute(ADD_MESSAGE_SQL, new.model_dump())).fetchone()
    if row is None:
        raise no_contact(new.contact_id)
    return Message.model_validate(row)


async def messages(connection: Connection, contact_id: UUID | None, *, limit: int) -> list[Message]:
    """Messages, newest first: a contact's, or everyone's.

    Raises:
        NotFound: The contact does not exist.
    """
    if contact_id is not None:
        await contact(connection, contact_id)
    cursor = await connection.execute(MESSAGES_SQL, {"contact_id": contact_id, "limit": limit})
    return [Message.model_validate(row) for row in await cursor.fetchall()]


def no_contact(contact_id: UUID) -> NotFound:
    """What to raise when nobody has this id."""
    return NotFound(f"There is no contact {str(contact_id)!r}.", details={"contact_id": str(contact_id)})
