"""Writing and reading messages: a message and its units become durable together."""

from collections.abc import Sequence
from dataclasses import astuple
from datetime import UTC, datetime

from core.errors import MemoryRefused
from core.memory import Message, Scope
from core.postgres import Connection, Pool
from core.texts import is_storable, make_storable
from memory.texts import Unit, split_into_units

# Longer than any letter; what is longer is a document, and not a message.
MAX_TEXT_CHARACTERS = 100_000
MAX_ID_CHARACTERS = 200
MAX_MESSAGES = 1_000
# For what is asked as of now: a message may be of a moment that is to come.
END_OF_TIME = datetime.max.replace(tzinfo=UTC)

# The row is locked until the end: who writes to a scope, or forgets it, takes turns, so that units see
# their neighbours.
SCOPE_SQL = """
INSERT INTO memory.scopes (tenant, contact_id) VALUES (%s, %s)
ON CONFLICT (tenant, contact_id) DO UPDATE SET contact_id = excluded.contact_id
RETURNING id
"""

INSERT_MESSAGES_SQL = """
INSERT INTO memory.messages (scope, id, role, text, at, session_id, channel_id)
SELECT %s, id, role, text, at, session_id, channel_id
FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::text[])
    WITH ORDINALITY AS given (id, role, text, at, session_id, channel_id, place)
ORDER BY place
ON CONFLICT (scope, id) DO NOTHING
RETURNING id, seq
"""

INSERT_UNITS_SQL = """
INSERT INTO memory.units
    (scope, message, part, session_id, at, configuration, date, text, words, identifiers, search, length)
SELECT message.scope, message.seq, part, message.session_id, message.at, configuration::regconfig, date,
       given.text, words, identifiers, '', 0
FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
    WITH ORDINALITY AS given (seq, part, configuration, date, text, words, identifiers, place)
JOIN memory.messages AS message USING (seq)
ORDER BY place
RETURNING id
"""

# Full text of units and of their neighbours in the session: see the labels in sql/0001_tables.sql. The
# length is in lexemes, weighted as memory/search.py weighs the labels. Vectors are made of a unit and the
# one before it, so those are queued whose unit before is new.
INDEX_UNITS_SQL = """
WITH new AS (
    SELECT id, scope, session_id, at, message, part FROM memory.units WHERE id = ANY(%(units)s)
), followers AS (
    SELECT beside.id FROM new CROSS JOIN LATERAL (
        SELECT id FROM memory.units AS u
        WHERE u.scope = new.scope AND u.session_id = new.session_id
          AND (u.at, u.message, u.part) > (new.at, new.message, new.part)
        ORDER BY at, message, part LIMIT 1
    ) AS beside
), leaders AS (
    SELECT beside.id FROM new CROSS JOIN LATERAL (
        SELECT id FROM memory.units AS u
        WHERE u.scope = new.scope AND u.session_id = new.session_id
          AND (u.at, u.message, u.part) < (new.at, new.message, new.part)
        ORDER BY at DESC, message DESC, part DESC LIMIT 1
    ) AS beside
), queued AS (
    INSERT INTO memory.unembedded (unit)
    SELECT id FROM new UNION SELECT id FROM followers
    ON CONFLICT (unit) DO UPDATE SET leased_until = '-infinity'
), fields AS (
    SELECT u.id,
           setweight(to_tsvector(u.configuration, u.words), 'A') AS own,
           setweight(to_tsvector(u.configuration, u.date), 'B') AS date,
           coalesce(setweight(to_tsvector(before.configuration, before.words), 'C'), '') AS before,
           coalesce(setweight(to_tsvector(after.configuration, after.words), 'D'), '') AS after
    FROM memory.units AS u
    LEFT JOIN LATERAL (
        SELECT configuration, words FROM memory.units AS b
        WHERE b.scope = u.scope AND b.session_id = u.session_id
          AND (b.at, b.message, b.part) < (u.at, u.message, u.part)
        ORDER BY at DESC, message DESC, part DESC LIMIT 1
    ) AS before ON true
    LEFT JOIN LATERAL (
        SELECT configuration, words FROM memory.units AS a
        WHERE a.scope = u.scope AND a.session_id = u.session_id
          AND (a.at, a.message, a.part) > (u.at, u.message, u.part)
        ORDER BY at, message, part LIMIT 1
    ) AS after ON true
    WHERE u.id IN (SELECT id FROM new UNION SELECT id FROM leaders UNION SELECT id FROM followers)
)
UPDATE memory.units SET
    search = own || fields.date || before || after,
    length = length(own) + length(fields.date) + 0.5 * length(before) + 0.35 * length(after)
FROM fields WHERE units.id = fields.id
"""

RECENT_SQL = """
SELECT id, role, text, at, session_id, channel_id
FROM memory.messages
WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
  AND (%(session)s = '' OR session_id = %(session)s) AND at <= %(as_of)s
ORDER BY at DESC, seq DESC LIMIT %(limit)s
"""


def checked(scope: Scope, messages: Sequence[Message]) -> None:
    """Refuse what cannot be kept.

    Raises:
        MemoryRefused: A message is too long, has no id or session, or a time without a zone.
    """
    check_scope(scope)
    if len(messages) > MAX_MESSAGES:
        raise MemoryRefused(f"{len(messages)} messages at once; send at most {MAX_MESSAGES}")
    for message in messages:
        fault = _fault(message)
        if fault:
            raise MemoryRefused(f"message {message.id[:MAX_ID_CHARACTERS]!r} {fault}")


def check_scope(scope: Scope) -> None:
    """Refuse a scope that names nobody.

    Raises:
        MemoryRefused: The tenant or the contact is empty, or no name.
    """
    if not (_is_name(scope.tenant) and _is_name(scope.contact_id)):
        raise MemoryRefused(f"tenant and contact_id must each have 1 to {MAX_ID_CHARACTERS} characters")


def check_session(session_id: str) -> None:
    """Refuse the name of no session; ``""`` stands for all of them.

    Raises:
        MemoryRefused: It is too long, or no text that can be stored.
    """
    if session_id and not _is_name(session_id):
        raise MemoryRefused(f"session_id must have at most {MAX_ID_CHARACTERS} characters, and no NUL")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_ID_CHARACTERS and is_storable(text)


def _fault(message: Message) -> str | None:
    if not _is_name(message.id):
        return f"must have an id of 1 to {MAX_ID_CHARACTERS} characters"
    if not _is_name(message.session_id):
        return f"must have a session_id of 1 to {MAX_ID_CHARACTERS} characters"
    if len(message.text) > MAX_TEXT_CHARACTERS:
        return f"has more than {MAX_TEXT_CHARACTERS} characters"
    if message.at.tzinfo is None:
        return "must say in which time zone its time is"
    return None


async def add_messages(pool: Pool, scope: Scope, messages: Sequence[Message]) -> int:
    """Keep messages with their units, in one transaction.

    Returns:
        How many were new.

    Raises:
        MemoryRefused: Some do not fit; none is kept.
    """
    checked(scope, messages)
    if not messages:
        return 0
    made = {
        message.id: split_into_units(message.text, message.at.astimezone(UTC))
        for message in reversed(messages)
    }
    async with pool.connection() as connection, connection.transaction():
        row = await (await connection.execute(SCOPE_SQL, (scope.tenant, scope.contact_id))).fetchone()
        assert row  # noqa: S101  # an upsert returns its row
        seqs = await _insert_messages(connection, row["id"], messages)
        if seqs:
            rows = [(seq, unit) for message, seq in seqs.items() for unit in made[message]]
            await _insert_units(connection, rows)
    return len(seqs)


async def _insert_messages(connection: Connection, scope: int, messages: Sequence[Message]) -> dict[str, int]:
    columns = (
        [message.id for message in messages],
        [message.role for message in messages],
        [make_storable(message.text) for message in messages],
        [message.at for message in messages],
        [message.session_id for message in messages],
        [make_storable(message.channel_id) for message in messages],
    )
    cursor = await connection.execute(INSERT_MESSAGES_SQL, (scope, *columns))
    return {row["id"]: row["seq"] for row in await cursor.fetchall()}


async def _insert_units(connection: Connection, rows: Sequence[tuple[int, Unit]]) -> None:
    columns = [list(column) for column in zip(*((seq, *astuple(unit)) for seq, unit in rows), strict=True)]
    cursor = await connection.execute(INSERT_UNITS_SQL, columns)
    added = [row["id"] for row in await cursor.fetchall()]
    await connection.execute(INDEX_UNITS_SQL, {"units": added})


async def recent_messages(
    pool: Pool, scope: Scope, *, session_id: str, limit: int, as_of: datetime | None = None
) -> list[Message]:
    """The newest messages, oldest of them first; none said after ``as_of``."""
    check_scope(scope)
    check_session(session_id)
    if limit < 1:
        raise MemoryRefused("limit must be at least 1")
    parameters = {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "session": session_id,
        "limit": limit,
        "as_of": as_of or END_OF_TIME,
    }
    async with pool.connection() as connection:
        rows = await (await connection.execute(RECENT_SQL, parameters)).fetchall()
    return [Message(**{**row, "at": utc(row["at"])}) for row in reversed(rows)]


def utc(at: datetime) -> datetime:
    """The same moment in UTC: the driver gives the server's time zone."""
    return at.astimezone(UTC)
