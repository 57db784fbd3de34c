"""Messages: add them with their units, list the newest, and forget a session or a contact."""

import asyncio
from collections.abc import Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Final

from core.errors import MemoryRefused
from core.memory import ErasedCounts, Message, Scope
from core.postgres import Connection, Pool, read_queries
from core.texts import is_storable, make_storable
from memory.database import SQL_FOLDER, retry_on_conflict
from memory.texts import FIRST_PARTS, Unit, split_into_units

# Longer than any letter; a longer text is a document rather than a message.
MAX_TEXT_CHARACTERS: Final = 100_000
MAX_ID_CHARACTERS: Final = 200
MAX_MESSAGES: Final = 1_000
# Splitting so much takes ten milliseconds or more.
_LONG_CHARACTERS: Final = 4_000
# Used when no time limit is asked for, because a message may have a time in the future.
END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)

_QUERIES: Final = read_queries(SQL_FOLDER / "messages.sql")
# Locks the row until the transaction ends: writers of a scope take turns, so that units see their neighbours.
SCOPE_SQL: Final = """
INSERT INTO memory.scopes (tenant, contact_id) VALUES (%s, %s)
ON CONFLICT (tenant, contact_id) DO UPDATE SET contact_id = excluded.contact_id
RETURNING id
"""

RECENT_SQL: Final = """
SELECT id, role, text, at, session_id, channel_id
FROM memory.messages
WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
  AND (%(session)s = '' OR session_id = %(session)s) AND at <= %(as_of)s
ORDER BY at DESC, seq DESC LIMIT %(limit)s
"""

# Concurrent writers of the scope wait.
LOCK_SCOPE_SQL: Final = "SELECT id FROM memory.scopes WHERE tenant = %s AND contact_id = %s FOR UPDATE"

_MESSAGE_IDS: Final = "SELECT id FROM memory.messages WHERE scope = %(scope)s AND session_id = %(session)s"
# Deleted in this order, so that a cascade deletes nothing that is not counted. %(session)s is '' for all
# sessions. Edges belong to the session of the message they were learnt from.
_OF_MESSAGES: Final = """message IN (
    SELECT seq FROM memory.messages WHERE scope = %(scope)s AND (%(session)s = '' OR session_id = %(session)s)
)"""
# A fact that a remaining message states too is kept, with that message as its source.
KEEP_FACTS_SQL: Final = f"""
UPDATE memory.facts SET source_message_id = other.source_message_id
FROM (
    SELECT DISTINCT ON (origin) origin, source_message_id FROM memory.statements
    WHERE scope = %(scope)s AND NOT ended AND source_message_id NOT IN ({_MESSAGE_IDS})
    ORDER BY origin, recorded_at
) AS other
WHERE %(session)s <> '' AND scope = %(scope)s AND facts.origin = other.origin
  AND facts.source_message_id IN ({_MESSAGE_IDS})
"""  # noqa: S608  # constants alone
DELETE_SQL: Final = {
    "statements": f"""DELETE FROM memory.statements
        WHERE scope = %(scope)s AND (%(session)s = '' OR source_message_id IN ({_MESSAGE_IDS}))""",  # noqa: S608
    "facts": f"""DELETE FROM memory.facts
        WHERE scope = %(scope)s AND (%(session)s = '' OR source_message_id IN ({_MESSAGE_IDS}))""",  # noqa: S608
    # Notes belong to no session, and are deleted with the contact.
    "notes": "DELETE FROM memory.notes WHERE scope = %(scope)s AND %(session)s = ''",
    "vectors": f"""DELETE FROM memory.vectors WHERE scope = %(scope)s AND unit IN (
        SELECT id FROM memory.units WHERE {_OF_MESSAGES})""",  # noqa: S608  # constants alone
    "units": f"DELETE FROM memory.units WHERE scope = %(scope)s AND {_OF_MESSAGES}",  # noqa: S608
    "edges": """DELETE FROM memory.edges
        WHERE scope = %(scope)s AND (%(session)s = '' OR source_message_id IN (
        SELECT id FROM memory.messages WHERE scope = %(scope)s AND session_id = %(session)s))""",
    "lines": """DELETE FROM memory.lines WHERE scope = %(scope)s AND (%(session)s = '' OR NOT EXISTS (
        SELECT FROM memory.facts WHERE facts.line = lines.id
        UNION ALL SELECT FROM memory.edges WHERE edges.line = lines.id))""",
    "nodes": """DELETE FROM memory.nodes WHERE scope = %(scope)s AND (%(session)s = '' OR NOT EXISTS (
        SELECT FROM memory.edges WHERE edges.scope = %(scope)s AND nodes.id IN (source, target)))""",
    "messages": """DELETE FROM memory.messages
        WHERE scope = %(scope)s AND (%(session)s = '' OR session_id = %(session)s)""",
}
# Statements about facts and edges that were deleted.
DELETE_ORPHANS_SQL: Final = """
DELETE FROM memory.statements WHERE scope = %(scope)s
  AND NOT EXISTS (SELECT FROM memory.facts WHERE facts.origin = statements.origin)
  AND NOT EXISTS (SELECT FROM memory.edges WHERE edges.origin = statements.origin)
"""
DELETE_SCOPE_SQL: Final = "DELETE FROM memory.scopes WHERE id = %s"


def check_messages(scope: Scope, messages: Sequence[Message]) -> None:
    """Check that messages can be stored.

    Raises:
        MemoryRefused: A message is too long, has no id or session, or a time without a zone.
    """
    check_scope(scope)
    if len(messages) > MAX_MESSAGES:
        raise MemoryRefused(f"{len(messages)} messages at once; send at most {MAX_MESSAGES}")
    for message in messages:
        if problem := _find_problem(message):
            raise MemoryRefused(f"message {message.id[:MAX_ID_CHARACTERS]!r} {problem}")


def check_scope(scope: Scope) -> None:
    """Check that a scope names a tenant and a contact.

    Raises:
        MemoryRefused: One of them is empty, too long, or cannot be stored.
    """
    if not (_is_name(scope.tenant) and _is_name(scope.contact_id)):
        raise MemoryRefused(f"tenant and contact_id must each have 1 to {MAX_ID_CHARACTERS} characters")


def check_session(session_id: str) -> None:
    """Check a session's id; ``""`` stands for all sessions.

    Raises:
        MemoryRefused: It is too long, or cannot be stored.
    """
    if session_id and not _is_name(session_id):
        raise MemoryRefused(f"session_id must have at most {MAX_ID_CHARACTERS} characters, and no NUL")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_ID_CHARACTERS and is_storable(text)


def _find_problem(message: Message) -> str | None:
    if not _is_name(message.id):
        return f"must have an id of 1 to {MAX_ID_CHARACTERS} characters"
    if not _is_name(message.session_id):
        return f"must have a session_id of 1 to {MAX_ID_CHARACTERS} characters"
    if len(message.text) > MAX_TEXT_CHARACTERS:
        return f"has more than {MAX_TEXT_CHARACTERS} characters"
    if message.at.tzinfo is None:
        return "must have a time with a time zone"
    return None


async def add_messages(pool: Pool, scope: Scope, messages: Sequence[Message]) -> int:
    """Store messages with their units, in one transaction.

    Returns:
        How many were new.

    Raises:
        MemoryRefused: A message cannot be stored; none is.
    """
    check_messages(scope, messages)
    if not messages:
        return 0
    units = await _split(messages)
    async with pool.connection() as connection, connection.transaction():
        row = await (await connection.execute(SCOPE_SQL, (scope.tenant, scope.contact_id))).fetchone()
        assert row  # noqa: S101  # an upsert returns its row
        seqs = await _insert_messages(connection, row["id"], messages)
        if seqs:
            rows = [(seq, unit) for message, seq in seqs.items() for unit in units[message]]
            await _insert_units(connection, rows)
    return len(seqs)


async def _split(messages: Sequence[Message]) -> dict[str, list[Unit]]:
    """Return each message's units; long messages are split beside the event loop."""

    def split() -> dict[str, list[Unit]]:
        return {
            message.id: split_into_units(message.text, message.at.astimezone(UTC))
            for message in reversed(messages)
        }

    is_long = sum(len(message.text) for message in messages) > _LONG_CHARACTERS
    return await asyncio.to_thread(split) if is_long else split()


async def _insert_messages(connection: Connection, scope: int, messages: Sequence[Message]) -> dict[str, int]:
    columns = (
        [message.id for message in messages],
        [message.role for message in messages],
        [make_storable(message.text) for message in messages],
        [message.at for message in messages],
        [message.session_id for message in messages],
        [make_storable(message.channel_id) for message in messages],
    )
    cursor = await connection.execute(_QUERIES["insert_messages"], (scope, *columns))
    return {row["id"]: row["seq"] for row in await cursor.fetchall()}


async def _insert_units(connection: Connection, rows: Sequence[tuple[int, Unit]]) -> None:
    columns = [list(column) for column in zip(*((seq, *astuple(unit)) for seq, unit in rows), strict=True)]
    cursor = await connection.execute(_QUERIES["insert_units"], columns)
    added = [row["id"] for row in await cursor.fetchall()]
    await connection.execute(_QUERIES["index_units"], {"units": added, "first_parts": FIRST_PARTS})


async def list_recent_messages(
    pool: Pool, scope: Scope, *, session_id: str, limit: int, as_of: datetime | None = None
) -> list[Message]:
    """Return the newest messages up to ``as_of``, the oldest of them first."""
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
    return [Message(**{**row, "at": to_utc(row["at"])}) for row in reversed(rows)]


async def forget(pool: Pool, scope: Scope, *, session_id: str, vectors: bool) -> ErasedCounts:
    """Delete everything learnt in a session, or about the whole contact.

    Args:
        pool: The service's pool.
        scope: Whose memory.
        session_id: The session, or ``""`` for the whole contact.
        vectors: Whether the table of vectors exists.

    Returns:
        How many rows were deleted, by table.
    """
    check_scope(scope)
    check_session(session_id)

    async def attempt() -> ErasedCounts:
        return await _delete_scope(pool, scope, session_id, vectors=vectors)

    # The indexer locks units before their scope, and may be working on the same rows.
    return await retry_on_conflict(attempt)


async def _delete_scope(pool: Pool, scope: Scope, session_id: str, *, vectors: bool) -> ErasedCounts:
    async with pool.connection() as connection, connection.transaction():
        row = await (await connection.execute(LOCK_SCOPE_SQL, (scope.tenant, scope.contact_id))).fetchone()
        if row is None:
            return ErasedCounts()
        counts = await _delete_rows(connection, row["id"], session_id, vectors=vectors)
        if not session_id:
            await connection.execute(DELETE_SCOPE_SQL, (row["id"],))
    return ErasedCounts(counts)


async def _delete_rows(
    connection: Connection, scope: int, session_id: str, *, vectors: bool
) -> dict[str, int]:
    parameters = {"scope": scope, "session": session_id}
    counts = {}
    await connection.execute(KEEP_FACTS_SQL.encode(), parameters)
    for table, statement in DELETE_SQL.items():
        if table != "vectors" or vectors:
            cursor = await connection.execute(statement.encode(), parameters)
            counts[table] = cursor.rowcount
    counts["statements"] += (await connection.execute(DELETE_ORPHANS_SQL, parameters)).rowcount
    return counts


def to_utc(at: datetime) -> datetime:
    """Convert a time to UTC; the driver returns times in the server's time zone."""
    return at.astimezone(UTC)
