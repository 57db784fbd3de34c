"""Store where the journeys of contacts are: which thread is the onboarding, which one the sale of a deal."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg.rows import DictRow

from core.postgres import Connection, Pool

# Triggers of the checkpoint tables keep ``waiting_threads``: the threads that wait for an answer.
LIST_SQL = """
SELECT graph, subject, thread_id, session_id,
       EXISTS (SELECT FROM waiting_threads WHERE waiting_threads.thread_id = journeys.thread_id) AS is_waiting
FROM sessions.journeys WHERE tenant = %s AND contact_id = %s ORDER BY last_at DESC
"""
CLAIM_SQL = """
WITH claimed AS (
    INSERT INTO sessions.journeys AS known
        (tenant, contact_id, graph, subject, thread_id, session_id, last_at)
    VALUES (%(tenant)s, %(contact)s, %(graph)s, %(subject)s, %(thread)s, %(session)s, %(now)s)
    ON CONFLICT (tenant, contact_id, graph, subject)
    DO UPDATE SET session_id = excluded.session_id, last_at = excluded.last_at
    RETURNING thread_id
), assigned AS (
    UPDATE sessions.messages SET journey_thread_id = claimed.thread_id FROM claimed
    WHERE tenant = %(tenant)s AND contact_id = %(contact)s AND id = %(message)s
)
SELECT thread_id FROM claimed
"""
MOVE_SQL = """
INSERT INTO sessions.journeys (tenant, contact_id, graph, subject, thread_id, session_id, last_at)
VALUES (%(tenant)s, %(contact)s, %(graph)s, %(subject)s, %(thread)s, %(session)s, %(now)s)
ON CONFLICT (tenant, contact_id, graph, subject)
DO UPDATE SET
    thread_id = excluded.thread_id, session_id = excluded.session_id, last_at = excluded.last_at
RETURNING thread_id
"""
FIND_MESSAGE_SQL = """
SELECT journey_thread_id FROM sessions.messages WHERE tenant = %s AND contact_id = %s AND id = %s
"""
ERASE_SQL = "DELETE FROM sessions.journeys WHERE thread_id = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """A journey of a contact.

    Attributes:
        graph: The graph that runs it.
        subject: What it is about: the opportunity's id; for an onboarding the contact's.
        thread_id: Its thread.
        session_id: The session in which it was continued last; empty: it was begun outside of any.
        is_waiting: Whether it waits for an answer to a question.
    """

    graph: str
    subject: str
    thread_id: str
    session_id: str
    is_waiting: bool


class JourneyStore:
    """Journeys in the service's Postgres.

    Args:
        pool: The service's pool.
        clock: The current time.
    """

    def __init__(self, pool: Pool, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._pool = pool
        self._clock = clock

    async def list_for_contact(self, tenant: str, contact_id: str) -> list[Journey]:
        """Return a contact's journeys, the latest first."""
        async with self._pool.connection() as connection:
            rows = await connection.execute(LIST_SQL, (tenant, contact_id))
            return [Journey(**row) for row in await rows.fetchall()]

    async def claim(self, tenant: str, contact_id: str, journey: Journey, *, message_id: str) -> str:
        """Record a journey that a message continues or begins, and that its thread answers the message.

        A repeated message then goes there again. Without a ``message_id`` nothing is recorded of it.

        Returns:
            Its thread: the known one, if another message has begun the journey meanwhile.
        """
        row = await self._write(CLAIM_SQL, tenant, contact_id, journey, message_id)
        return str(row["thread_id"])

    async def move(self, tenant: str, contact_id: str, journey: Journey) -> None:
        """Record the thread of a journey that its caller has begun there, in place of the known one."""
        await self._write(MOVE_SQL, tenant, contact_id, journey)

    async def _write(
        self, statement: str, tenant: str, contact_id: str, journey: Journey, message_id: str = ""
    ) -> DictRow:
        parameters = {
            "tenant": tenant,
            "contact": contact_id,
            "graph": journey.graph,
            "subject": journey.subject,
            "thread": journey.thread_id,
            "session": journey.session_id,
            "now": self._clock(),
            "message": message_id,
        }
        async with self._pool.connection() as connection:
            row = await (await connection.execute(statement.encode(), parameters)).fetchone()
        if row is None:
            raise RuntimeError("an upsert without a condition returned no row")
        return row

    async def find_message(self, tenant: str, contact_id: str, message_id: str) -> str:
        """Return the journey's thread that answers a message; empty: its session's thread does."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(FIND_MESSAGE_SQL, (tenant, contact_id, message_id))
            ).fetchone()
        return str(row["journey_thread_id"]) if row else ""


async def erase_journey(connection: Connection, thread_id: str) -> None:
    """Delete the entry of the journey on a thread in the caller's transaction."""
    await connection.execute(ERASE_SQL, (thread_id,))
