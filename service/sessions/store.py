"""Store sessions: assign messages to them, close idle ones, and list closed ones without a summary."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from psycopg.rows import DictRow

from core.errors import NotFound, SessionRefused
from core.postgres import Connection, Pool

# Called in the transaction that opens a session under an id the caller chose; raises where they may not.
AuthorizeId: TypeAlias = Callable[[Connection, str], Awaitable[None]]
ClosedBy: TypeAlias = Literal["idle", "agent"]
SessionState: TypeAlias = Literal["agent", "waiting", "person", "closed"]

# Identifies the closing of idle sessions among advisory locks.
SWEEP_LOCK_ID = 0x73_65_73_73_73_77

ENTER_SQL = """
SELECT session, repeated, opened, held FROM sessions.enter(
    %(tenant)s, %(contact)s, %(channel)s, %(named)s, %(message)s, %(new)s, %(now)s, %(oldest)s
)
"""
FIND_TENANT_SQL = "SELECT tenant FROM sessions.sessions WHERE id = %s"
COLUMNS = "id, tenant, contact_id, channel_id, opened_at, last_at, closed_at, closed_by, summary"
GET_SQL = f"SELECT {COLUMNS} FROM sessions.sessions WHERE tenant = %s AND id = %s"  # noqa: S608 - constants
# A session is a thread, whose row says who has taken it over and what its last run said.
FIND_SQL = """
SELECT * FROM (
    SELECT session.*, thread.held_by, thread.held_at, thread.updated_at AS changed_at,
           thread.metadata AS latest,
           CASE WHEN thread.held_by <> '' THEN 'person'
                WHEN waiting.thread_id IS NOT NULL THEN 'waiting'
                WHEN thread.metadata @> '{"needs_person": true}' THEN 'waiting'
                WHEN session.closed_at IS NOT NULL THEN 'closed'
                ELSE 'agent' END AS state
    FROM sessions.sessions AS session
    LEFT JOIN runs.threads AS thread ON thread.id = session.id
    LEFT JOIN waiting_threads AS waiting ON waiting.thread_id = session.id
    WHERE session.tenant = %(tenant)s
      AND (%(id)s::text IS NULL OR session.id = %(id)s)
      AND (%(contact_id)s::text IS NULL OR session.contact_id = %(contact_id)s)
      AND (%(channel_id)s::text IS NULL OR session.channel_id = %(channel_id)s)
) AS conversation
WHERE (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(held_by)s::text IS NULL OR held_by = %(held_by)s)
  AND (%(agent)s::text IS NULL OR latest ->> 'agent' = %(agent)s)
  AND (%(query)s::text IS NULL OR strpos(lower(latest ->> 'last_message'), lower(%(query)s)) > 0
       OR contact_id = %(query)s)
ORDER BY last_at DESC, id LIMIT %(limit)s OFFSET %(offset)s
"""
REOPEN_SQL = """
UPDATE sessions.sessions SET closed_at = NULL, closed_by = NULL, summary = NULL WHERE tenant = %s AND id = %s
"""
TOUCH_SQL = "UPDATE sessions.sessions SET last_at = %s WHERE tenant = %s AND id = %s"
CLOSE_SQL = """
UPDATE sessions.sessions SET closed_at = %s, closed_by = 'agent'
WHERE tenant = %s AND id = %s AND closed_at IS NULL
"""
ERASE_SQL = "DELETE FROM sessions.sessions WHERE id = %s"
TRY_LOCK_SQL = "SELECT pg_try_advisory_xact_lock(%s) AS locked"
CLOSE_IDLE_SQL = """
UPDATE sessions.sessions SET closed_at = %(now)s, closed_by = 'idle' WHERE id IN (
    SELECT id FROM sessions.sessions WHERE closed_at IS NULL AND last_at <= %(oldest)s
      AND NOT sessions.is_held(id)
    ORDER BY last_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""
UNSUMMARISED_SQL = """
SELECT id, tenant, closed_at FROM sessions.sessions
WHERE closed_at IS NOT NULL AND summary IS NULL AND (closed_at, id) > (%(closed_at)s, %(id)s)
ORDER BY closed_at, id LIMIT %(limit)s
"""
# A session that was resumed meanwhile is summarised again later.
SAVE_SUMMARY_SQL = "UPDATE sessions.sessions SET summary = %s WHERE id = %s AND closed_at = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A contact's conversation on a channel. Times are UTC.

    Attributes:
        id: The id of its thread.
        tenant: The contact's tenant.
        contact_id: The contact.
        channel_id: The channel; empty: not known.
        opened_at: When its first message came.
        last_at: When its last message came.
        closed_at: When it was closed; None: it is open.
        closed_by: ``idle``: closed after a time without messages; ``agent``: closed by the agent.
        summary: What was said; None until it is closed and summarised.
    """

    id: str
    tenant: str
    contact_id: str
    channel_id: str
    opened_at: datetime
    last_at: datetime
    closed_at: datetime | None
    closed_by: ClosedBy | None
    summary: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Session):
    """A session with what its last run said.

    Attributes:
        state: ``person``: somebody has taken it over; ``waiting``: for a person, as an agent handed it over
            or a question is open; ``closed``; ``agent``: agents answer.
        held_by: Who has taken it over; empty: nobody.
        held_at: Since when.
        changed_at: When its thread was last changed by the end of a run; None: it has no thread yet.
        latest: What its last run said, see :func:`service.conversations.transcript.describe_thread`.
    """

    state: SessionState
    held_by: str
    held_at: datetime | None
    changed_at: datetime | None
    latest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """The session a message was assigned to.

    Attributes:
        session_id: The session.
        repeated: Whether a message with this id came before.
        is_held: Whether a person has taken it over.
    """

    session_id: str
    repeated: bool
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class UnsummarisedSession:
    """A closed session without a summary."""

    tenant: str
    id: str


class SessionStore:
    """Sessions in the service's Postgres.

    Args:
        pool: The service's pool.
        idle_seconds: After so long without a message a session is closed.
        clock: The current time.
    """

    def __init__(
        self, pool: Pool, *, idle_seconds: float, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._pool = pool
        self._idle = timedelta(seconds=idle_seconds)
        self._clock = clock

    async def enter(
        self,
        tenant: str,
        contact_id: str,
        *,
        channel_id: str,
        session_id: str,
        message_id: str,
        new_id: str,
        authorize: AuthorizeId | None = None,
    ) -> SessionEntry:
        """Assign a message to a session: the one it names, the channel's current one, or a new one.

        A message that is repeated stays in the session of its first arrival.

        Args:
            tenant: The contact's tenant.
            contact_id: The contact who wrote.
            channel_id: The channel; empty: not known, so no earlier session is continued.
            session_id: The session to continue; empty: none is named.
            message_id: The message's id in its channel; empty: it has none.
            new_id: The id of a session that is opened.
            authorize: Checks whether a named session that does not exist yet may be opened.

        Raises:
            SessionRefused: The named session belongs to another contact.
            NotFound: The named session belongs to another tenant.
        """
        now = self._clock()
        parameters: dict[str, object] = {
            "tenant": tenant,
            "contact": contact_id,
            "channel": channel_id,
            "named": session_id,
            "message": message_id,
            "new": new_id,
            "now": now,
            "oldest": now - self._idle,
        }
        async with self._pool.connection() as connection, AsyncExitStack() as stack:
            if authorize and session_id:
                await stack.enter_async_context(connection.transaction())
            entered = await _fetch_one(connection, ENTER_SQL, parameters)
            if entered is None:
                raise await _explain_refusal(connection, tenant, session_id or new_id)
            if authorize and session_id and entered["opened"]:
                await authorize(connection, session_id)
        return SessionEntry(entered["session"], repeated=entered["repeated"], is_held=entered["held"])

    async def get(self, tenant: str, session_id: str) -> Session | None:
        """Return a session of the tenant; None: there is none with this id."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(GET_SQL, (tenant, session_id))).fetchone()
        return _build_session(row) if row else None

    async def find(
        self,
        tenant: str,
        *,
        session_id: str | None = None,
        contact_id: str | None = None,
        channel_id: str | None = None,
        state: SessionState | None = None,
        held_by: str | None = None,
        agent: str | None = None,
        query: str | None = None,
        limit: int = 1,
        offset: int = 0,
    ) -> list[Conversation]:
        """Return the tenant's conversations that meet all given conditions, the latest first.

        Args:
            tenant: The tenant.
            session_id: The session.
            contact_id: The contact.
            channel_id: The channel.
            state: See :class:`Conversation`.
            held_by: Who has taken it over.
            agent: The agent that answered last.
            query: Words of the last message, or the contact.
            limit: At most so many.
            offset: So many are left out.
        """
        parameters: dict[str, object] = {
            "tenant": tenant,
            "id": session_id,
            "contact_id": contact_id,
            "channel_id": channel_id,
            "state": state,
            "held_by": held_by,
            "agent": agent,
            "query": query,
            "limit": limit,
            "offset": offset,
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(FIND_SQL, parameters)).fetchall()
        return [_build_conversation(row) for row in rows]

    async def reopen(self, tenant: str, session_id: str) -> None:
        """Open a session again; an open one stays as it is."""
        async with self._pool.connection() as connection:
            await connection.execute(REOPEN_SQL, (tenant, session_id))

    async def touch(self, tenant: str, session_id: str) -> None:
        """Have the time of idleness begin now."""
        async with self._pool.connection() as connection:
            await connection.execute(TOUCH_SQL, (self._clock(), tenant, session_id))

    async def close(self, tenant: str, session_id: str) -> None:
        """Close a session for the agent; a closed session stays as it is."""
        async with self._pool.connection() as connection:
            await connection.execute(CLOSE_SQL, (self._clock(), tenant, session_id))

    async def close_idle(self, *, limit: int) -> int:
        """Close the sessions that were idle too long, the longest idle first.

        Returns:
            The number closed; 0 also where another service is closing sessions.
        """
        now = self._clock()
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(TRY_LOCK_SQL, (SWEEP_LOCK_ID,))).fetchone()
            if not (row and row["locked"]):
                return 0
            parameters = {"now": now, "oldest": now - self._idle, "limit": limit}
            return (await connection.execute(CLOSE_IDLE_SQL, parameters)).rowcount

    async def list_unsummarised(self, *, limit: int) -> AsyncIterator[list[UnsummarisedSession]]:
        """Yield the closed sessions without a summary in pages, the longest closed first."""
        after: dict[str, object] = {"closed_at": datetime.min.replace(tzinfo=UTC), "id": ""}
        while True:
            async with self._pool.connection() as connection:
                rows = await connection.execute(UNSUMMARISED_SQL.encode(), {**after, "limit": limit})
                page = await rows.fetchall()
            if not page:
                return
            yield [UnsummarisedSession(row["tenant"], row["id"]) for row in page]
            after = page[-1]

    async def save_summary(self, session: Session, summary: str) -> None:
        """Save the summary, unless the session was resumed meanwhile."""
        async with self._pool.connection() as connection:
            await connection.execute(SAVE_SUMMARY_SQL, (summary, session.id, session.closed_at))


async def find_session_tenant(connection: Connection, session_id: str) -> str | None:
    """Return the tenant of a session; None: there is none with this id."""
    row = await (await connection.execute(FIND_TENANT_SQL, (session_id,))).fetchone()
    return str(row["tenant"]) if row else None


async def _explain_refusal(connection: Connection, tenant: str, session_id: str) -> NotFound | SessionRefused:
    """Return the error for a session of another contact; another tenant's session does not exist."""
    if await find_session_tenant(connection, session_id) != tenant:
        return NotFound(f"there is no session {session_id!r}", details={"session_id": session_id})
    return SessionRefused(
        f"session {session_id!r} belongs to another contact: leave out session_id, or name another",
        details={"session_id": session_id},
    )


async def erase_session(connection: Connection, session_id: str) -> None:
    """Delete a session and its message ids in the caller's transaction."""
    await connection.execute(ERASE_SQL, (session_id,))


async def _fetch_one(connection: Connection, statement: str, parameters: dict[str, object]) -> DictRow | None:
    return await (await connection.execute(statement.encode(), parameters)).fetchone()


def _build_session(row: DictRow) -> Session:
    return Session(**_in_utc(row))


def _build_conversation(row: DictRow) -> Conversation:
    # A session may be older than its thread's row.
    return Conversation(**{**_in_utc(row), "held_by": row["held_by"] or "", "latest": row["latest"] or {}})


def _in_utc(row: DictRow) -> dict[str, Any]:
    return {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in row.items()
    }
