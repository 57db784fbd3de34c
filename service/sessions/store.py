"""Which session a message belongs to, and the life of a session."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from psycopg.rows import DictRow

from core.errors import NotFound, SessionRefused
from core.postgres import Connection, Pool

# Asked in the transaction that opens a session under an id its caller chose; it raises where they may not.
Claim: TypeAlias = Callable[[Connection, str], Awaitable[None]]
ClosedBy: TypeAlias = Literal["idle", "agent"]

# Who makes a summary and dies is waited for so long.
LEASE_SECONDS = 120
# Names "the one who closes idle sessions" among advisory locks.
SWEEP_LOCK_ID = 0x73_65_73_73_73_77

# Messages of one contact take turns here, so that two first ones open one session.
LOCK_CONTACT_SQL = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
KNOWN_MESSAGE_SQL = """
SELECT session_id FROM sessions.messages
WHERE tenant = %(tenant)s AND contact_id = %(contact)s AND id = %(message)s
"""
CURRENT_SQL = """
SELECT id FROM sessions.sessions
WHERE tenant = %(tenant)s AND contact_id = %(contact)s AND channel_id = %(channel)s
  AND closed_at IS NULL AND last_at > %(oldest)s
ORDER BY last_at DESC, id LIMIT 1
"""
# One that was closed and goes on is open again, and will have another summary. An update needs its owner.
ENTER_SQL = """
INSERT INTO sessions.sessions AS known (id, tenant, contact_id, channel_id, opened_at, last_at)
VALUES (%(id)s, %(tenant)s, %(contact)s, %(channel)s, %(now)s, %(now)s)
ON CONFLICT (id) DO UPDATE SET
    last_at = greatest(known.last_at, excluded.last_at), closed_at = NULL, closed_by = NULL, summary = NULL
WHERE known.tenant = excluded.tenant AND known.contact_id = excluded.contact_id
RETURNING id, xmax = 0 AS opened
"""
TENANT_SQL = "SELECT tenant FROM sessions.sessions WHERE id = %s"
RECEIVE_SQL = """
INSERT INTO sessions.messages (tenant, contact_id, id, session_id, received_at)
VALUES (%(tenant)s, %(contact)s, %(message)s, %(id)s, %(now)s)
"""
COLUMNS = "id, tenant, contact_id, channel_id, opened_at, last_at, closed_at, closed_by, summary"
ONE_SQL = f"SELECT {COLUMNS} FROM sessions.sessions WHERE tenant = %s AND id = %s"  # noqa: S608 - constants
OF_CONTACT_SQL = f"""
SELECT {COLUMNS} FROM sessions.sessions WHERE tenant = %s AND contact_id = %s
ORDER BY last_at DESC, id LIMIT %s OFFSET %s
"""  # noqa: S608 - constants
CLOSE_SQL = """
UPDATE sessions.sessions SET closed_at = %s, closed_by = 'agent'
WHERE tenant = %s AND id = %s AND closed_at IS NULL
"""
ERASE_SQL = "DELETE FROM sessions.sessions WHERE id = %s"
TRY_LOCK_SQL = "SELECT pg_try_advisory_xact_lock(%s) AS ours"
CLOSE_IDLE_SQL = """
UPDATE sessions.sessions SET closed_at = %(now)s, closed_by = 'idle' WHERE id IN (
    SELECT id FROM sessions.sessions WHERE closed_at IS NULL AND last_at <= %(oldest)s
    ORDER BY last_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""
LEASE_SQL = f"""
UPDATE sessions.sessions SET leased_until = %(now)s + %(seconds)s * interval '1 second' WHERE id IN (
    SELECT id FROM sessions.sessions
    WHERE closed_at IS NOT NULL AND summary IS NULL AND leased_until < %(now)s
    ORDER BY closed_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
RETURNING {COLUMNS}
"""  # noqa: S608 - constants
# One that went on meanwhile is another session to sum up.
SUMMARISED_SQL = "UPDATE sessions.sessions SET summary = %s WHERE id = %s AND closed_at = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A contact's conversation on a channel. Times are UTC.

    Attributes:
        id: The thread's id.
        tenant: Whose customer.
        contact_id: Who.
        channel_id: Where; empty: not known.
        opened_at: When its first message came.
        last_at: When the last one came.
        closed_at: When it was closed; None: it is open.
        closed_by: Whether for idleness, or by the agent.
        summary: What was said, once it is closed and summed up.
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


@dataclass(frozen=True, slots=True)
class Entered:
    """Where a message belongs.

    Attributes:
        session_id: The session.
        repeated: Whether a message of this id came before.
    """

    session_id: str
    repeated: bool


class SessionStore:
    """Sessions, on the service's Postgres.

    Args:
        pool: The service's pool.
        idle_seconds: After so long without a message a session is over.
        clock: The time.
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
        claim: Claim | None = None,
    ) -> Entered:
        """The session of a message that came: the one it names, the channel's current one, or a new one.

        A message whose id is known stays in the session it came to first.

        Args:
            tenant: Whose customer.
            contact_id: Who wrote.
            channel_id: Where; empty: not known, and then no earlier session goes on.
            session_id: The session they go on with; empty: none is named.
            message_id: The message's id where it comes from; empty: it has none.
            new_id: Id of a session that is opened.
            claim: Whether a session they name may be opened, where there is none yet.

        Raises:
            SessionRefused: The session they name is another contact's.
            NotFound: The session they name is another tenant's.
        """
        now = self._clock()
        given: dict[str, object] = {
            "tenant": tenant,
            "contact": contact_id,
            "channel": channel_id,
            "message": message_id,
            "now": now,
        }
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(LOCK_CONTACT_SQL, (f"{tenant}\n{contact_id}",))
            if message_id and (known := await _one(connection, KNOWN_MESSAGE_SQL, given)):
                return Entered(known["session_id"], repeated=True)
            current = None
            if channel_id and not session_id:
                current = await _one(connection, CURRENT_SQL, {**given, "oldest": now - self._idle})
            chosen = session_id or (current["id"] if current else new_id)
            entered = await _one(connection, ENTER_SQL, {**given, "id": chosen})
            if entered is None:
                raise await _refusal(connection, tenant, chosen)
            if claim and session_id and entered["opened"]:
                await claim(connection, session_id)
            if message_id:
                await connection.execute(RECEIVE_SQL, {**given, "id": chosen})
        return Entered(chosen, repeated=False)

    async def get(self, tenant: str, session_id: str) -> Session | None:
        """A session of the tenant's; None where there is none of that id."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(ONE_SQL, (tenant, session_id))).fetchone()
        return _session(row) if row else None

    async def of_contact(self, tenant: str, contact_id: str, *, limit: int, offset: int = 0) -> list[Session]:
        """A contact's sessions, the latest first."""
        async with self._pool.connection() as connection:
            rows = await connection.execute(OF_CONTACT_SQL, (tenant, contact_id, limit, offset))
            return [_session(row) for row in await rows.fetchall()]

    async def close(self, tenant: str, session_id: str) -> None:
        """Close a session for the agent; one that is closed stays as it is."""
        async with self._pool.connection() as connection:
            await connection.execute(CLOSE_SQL, (self._clock(), tenant, session_id))

    async def close_idle(self, *, limit: int) -> int:
        """Close the sessions that were idle too long, those that were so longest first.

        Returns:
            How many; 0 where another service is at it.
        """
        now = self._clock()
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(TRY_LOCK_SQL, (SWEEP_LOCK_ID,))).fetchone()
            if not (row and row["ours"]):
                return 0
            given = {"now": now, "oldest": now - self._idle, "limit": limit}
            return (await connection.execute(CLOSE_IDLE_SQL, given)).rowcount

    async def take_unsummarised(self, *, limit: int) -> list[Session]:
        """Closed sessions without a summary; nobody else is given them for :data:`LEASE_SECONDS`."""
        given = {"now": self._clock(), "seconds": LEASE_SECONDS, "limit": limit}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(LEASE_SQL, given)).fetchall()
        return [_session(row) for row in rows]

    async def summarised(self, session: Session, summary: str) -> None:
        """Keep the summary, unless the session went on meanwhile."""
        async with self._pool.connection() as connection:
            await connection.execute(SUMMARISED_SQL, (summary, session.id, session.closed_at))


async def session_tenant(connection: Connection, session_id: str) -> str | None:
    """Whose a session is; None where there is none of that id."""
    row = await (await connection.execute(TENANT_SQL, (session_id,))).fetchone()
    return str(row["tenant"]) if row else None


async def _refusal(connection: Connection, tenant: str, session_id: str) -> NotFound | SessionRefused:
    """Another contact of the tenant's is told apart; what is another tenant's does not exist."""
    if await session_tenant(connection, session_id) != tenant:
        return NotFound(f"there is no session {session_id!r}", details={"session_id": session_id})
    return SessionRefused(
        f"session {session_id!r} is not this contact's: leave session_id out, or name one of theirs",
        details={"session_id": session_id},
    )


async def erase_session(connection: Connection, session_id: str) -> None:
    """Delete a session and what is known of its messages, in the caller's transaction."""
    await connection.execute(ERASE_SQL, (session_id,))


async def _one(connection: Connection, statement: str, given: dict[str, object]) -> DictRow | None:
    return await (await connection.execute(statement.encode(), given)).fetchone()


def _session(row: DictRow) -> Session:
    times = ("opened_at", "last_at", "closed_at")
    return Session(**{**row, **{name: row[name] and row[name].astimezone(UTC) for name in times}})
