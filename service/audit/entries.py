"""Entries of the audit: what one says, how it is written and how entries are found."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from core.context import Actor, current_actor
from core.logging import get_logger
from core.postgres import Connection, Pool
from core.texts import make_storable
from service.audit.redaction import redact

log = get_logger(__name__)

# effect: something on the outside; approval: a person's decision; run: the end of one; erasure: a thread, for
# good; key: an API key was made, changed or revoked; retention: entries were cut off.
Action: TypeAlias = Literal["effect", "approval", "run", "erasure", "key", "retention"]
ACTIONS: Final[tuple[Action, ...]] = ("effect", "approval", "run", "erasure", "key", "retention")

# Notes that wait to be written; more than that were made while the database was away, and the oldest go.
MOST_NOTES: Final = 10_000

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
# What entries may be asked for by.
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
    """One thing that was done. Arguments and details are redacted as it is written.

    Attributes:
        action: What kind of thing.
        outcome: What came of it, a word or an error's code.
        tool: What exactly was done, e.g. the CRM's ``send_message``.
        arguments: With what, as JSON.
        details: What else is to be known, as JSON.
        effect_key: The effect's key; empty: it is none.
        actor: On whose behalf.
    """

    action: Action
    outcome: str
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    effect_key: str = ""
    actor: Actor = field(default_factory=current_actor)

    def row(self) -> dict[str, object]:
        """The parameters of :data:`INSERT_SQL`."""
        return {
            "tenant": self.actor.tenant,
            # Another system's text: one that Postgres refuses would keep all notes from being written.
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
class Found:
    """An entry as it is kept; ``position`` and ``hash`` are ``None`` until it is linked. Times are UTC."""

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


def key_change(
    change: Literal["created", "rotated", "revoked"], key_id: str, *, scopes: Sequence[str], by: Actor
) -> Entry:
    """The entry of a change to an API key; write it with :func:`record_in`, in the change's transaction.

    Args:
        change: What was done.
        key_id: The key's public id, never its secret.
        scopes: What it may do from then on.
        by: Who did it.
    """
    return Entry(action="key", tool=key_id, outcome=change, details={"scopes": list(scopes)}, actor=by)


async def record_in(connection: Connection, entry: Entry) -> None:
    """Write an entry in the caller's transaction: with what it tells of, or not at all."""
    await connection.execute(INSERT_SQL, entry.row())


class Audit:
    """The audit, on the service's Postgres.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._notes: deque[Entry] = deque()

    async def record(self, entry: Entry) -> None:
        """Write an entry now.

        Raises:
            psycopg.Error, PoolTimeout: It could not be written.
        """
        async with self._pool.connection() as connection:
            await record_in(connection, entry)

    def note(self, entry: Entry) -> None:
        """Have an entry written within a second or so; a service that is killed before loses it."""
        if len(self._notes) >= MOST_NOTES:
            lost = self._notes.popleft()
            log.error("audit_note_lost", action=lost.action, thread_id=lost.actor.thread_id)
        self._notes.append(entry)

    async def flush(self) -> int:
        """Write the notes, all or none of them.

        Returns:
            How many.
        """
        notes = list(self._notes)
        if not notes:
            return 0
        # Those that come meanwhile are for the next time; the deque drops its oldest when it is full.
        self._notes.clear()
        try:
            async with self._pool.connection() as connection, connection.transaction():
                await connection.cursor().executemany(INSERT_SQL, [note.row() for note in notes])
        except BaseException:
            later = list(self._notes)
            self._notes.clear()
            self._notes.extend([*notes, *later])
            raise
        return len(notes)

    async def find(self, tenant: str, *, limit: int, **wanted: str | int | datetime | None) -> list[Found]:
        """The tenant's entries, the latest first.

        Args:
            tenant: Whose.
            limit: Most entries.
            **wanted: By the names of :data:`CONDITIONS`; ``None``: any.
        """
        given = {name: value for name, value in wanted.items() if value is not None}
        conditions = " AND ".join(["tenant = %(tenant)s", *(CONDITIONS[name] for name in given)])
        query = FIND_SQL.format(columns=COLUMNS, conditions=conditions)
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query.encode(), {**given, "tenant": tenant, "limit": limit})
            return [Found(**row) for row in await cursor.fetchall()]
