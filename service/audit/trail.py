"""The audit trail: what an entry says, how entries are written and how they are found."""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from core.context import Actor, current_actor
from core.logging import get_logger
from core.postgres import Connection, Pool
from core.texts import make_storable
from service.audit.redaction import redact

log = get_logger(__name__)

# effect: something outside was changed; approval: a person decided; takeover: a person took a conversation
# over or gave it back; run: a run ended; erasure: a thread was erased; key: an API key was created, rotated
# or revoked; retention: old entries were removed; state: a thread's state was changed by hand.
Action: TypeAlias = Literal["effect", "approval", "takeover", "run", "erasure", "key", "retention", "state"]

# Notes that wait to be written. While the database is unavailable, the oldest are dropped beyond this.
MAX_NOTES: Final = 10_000

INTO_ENTRIES: Final = """INSERT INTO audit.entries (
    tenant, user_id, key_id, thread_id, run_id, action, tool, effect_key, arguments, outcome, details
)"""
ENTRY_VALUES: Final = """
    %(tenant)s, %(user)s, %(key_id)s, %(thread)s, %(run)s, %(action)s, %(tool)s, %(effect_key)s,
    %(arguments)s::jsonb, %(outcome)s, %(details)s::jsonb
"""
INSERT_SQL: Final = f"{INTO_ENTRIES} VALUES ({ENTRY_VALUES})"
COLUMNS: Final = (
    "id, at, user_id, key_id, thread_id, run_id, action, tool, effect_key, arguments, outcome, details, "
    "position, hash"
)
# The filters of `AuditTrail.find`.
CONDITIONS: Final[Mapping[str, str]] = {
    "thread_id": "thread_id = %(thread_id)s",
    "user_id": "user_id = %(user_id)s",
    "action": "action = %(action)s",
    "since": "at >= %(since)s",
    "until": "at < %(until)s",
    "before": "id < %(before)s",
}
FIND_SQL: Final = "SELECT {columns} FROM audit.entries WHERE {conditions} ORDER BY id DESC LIMIT %(limit)s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry to write. Arguments and details are redacted when it is written.

    Attributes:
        action: The kind of action.
        outcome: The result: a word or an error code.
        tool: What exactly was done, e.g. the CRM's ``send_message``.
        arguments: The arguments, as JSON.
        details: Further details, as JSON.
        effect_key: The idempotency key of an effect; empty: the action is not one.
        actor: On whose behalf it was done.
    """

    action: Action
    outcome: str
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    effect_key: str = ""
    actor: Actor = field(default_factory=current_actor)

    def to_row(self) -> dict[str, object]:
        """Return the parameters of :data:`INSERT_SQL`."""
        return {
            "tenant": self.actor.tenant,
            # The name comes from another system; one that Postgres refuses would block all other notes.
            "user": make_storable(self.actor.user),
            "key_id": self.actor.key_id,
            "thread": self.actor.thread_id,
            "run": self.actor.run_id,
            "action": self.action,
            "tool": self.tool,
            "effect_key": self.effect_key,
            "arguments": json.dumps(redact(self.arguments)),
            "outcome": self.outcome,
            "details": json.dumps(redact(self.details)),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """An entry as stored; ``position`` and ``hash`` are None until it is linked. Times are UTC."""

    id: int
    at: datetime
    user_id: str
    key_id: str
    thread_id: str
    run_id: str
    action: Action
    tool: str
    effect_key: str
    arguments: dict[str, Any]
    outcome: str
    details: dict[str, Any]
    position: int | None
    hash: bytes | None


async def record_entry(connection: Connection, entry: Entry) -> None:
    """Write an entry in the caller's transaction, so that it is stored together with the change."""
    await connection.execute(INSERT_SQL, entry.to_row())


class AuditTrail:
    """The audit trail in the service's Postgres.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._notes: deque[Entry] = deque()

    async def record(self, entry: Entry) -> None:
        """Write an entry now.

        Raises:
            psycopg.Error, PoolTimeout: The entry could not be written.
        """
        async with self._pool.connection() as connection:
            await record_entry(connection, entry)

    def note(self, entry: Entry) -> None:
        """Queue an entry to be written within about a second; a service that is killed before loses it."""
        self._notes.append(entry)
        self._drop_oldest()

    async def flush(self) -> int:
        """Write the queued entries in one transaction; if that fails, they stay queued.

        Returns:
            The number of entries written.
        """
        notes = list(self._notes)
        if not notes:
            return 0
        # Notes that arrive meanwhile wait for the next flush.
        self._notes.clear()
        try:
            async with self._pool.connection() as connection, connection.transaction():
                await connection.cursor().executemany(INSERT_SQL, [note.to_row() for note in notes])
        except BaseException:
            self._notes.extendleft(reversed(notes))
            self._drop_oldest()
            raise
        return len(notes)

    def _drop_oldest(self) -> None:
        while len(self._notes) > MAX_NOTES:
            lost = self._notes.popleft()
            log.error("audit_note_lost", action=lost.action, thread_id=lost.actor.thread_id)

    async def find(
        self, tenant: str, *, limit: int, **filters: str | int | datetime | None
    ) -> list[StoredEntry]:
        """Return the tenant's entries, the latest first.

        Args:
            tenant: The tenant.
            limit: Maximum number of entries.
            **filters: By the names of :data:`CONDITIONS`; None: not filtered.
        """
        given = {name: value for name, value in filters.items() if value is not None}
        conditions = " AND ".join(["tenant = %(tenant)s", *(CONDITIONS[name] for name in given)])
        query = FIND_SQL.format(columns=COLUMNS, conditions=conditions)
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query.encode(), {**given, "tenant": tenant, "limit": limit})
            return [StoredEntry(**row) for row in await cursor.fetchall()]
