"""Notes of agents, with a type that says how long they are kept and who sees them.

A *message* and the *facts* learnt from it are evidence: they are kept until they are forgotten on purpose,
and all agents of the contact share them. A *note* is what an agent wants to have at hand and may lose: a
half-done step (short-term, 1 h), the case in work (working, 24 h), how this contact likes to be served
(long-term, 30 d). Only the agent that wrote such a note sees it, because another agent would take it for
knowledge. What other agents should see is written as ``shared`` (7 d), which is how a hand-over communicates.
Trimming and sweeping notes therefore never loses evidence.

Reading applies the retention of today's settings; the sweep only frees space.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self, get_args

from psycopg.rows import DictRow

from core.errors import MemoryRefused
from core.logging import get_logger
from core.memory import Hit, Note, NoteType, RetrieverRank, Scope
from core.postgres import Connection, Pool
from core.settings import MemorySettings
from core.texts import detect_language, is_storable, make_storable
from memory.database import translate_errors
from memory.messages import MAX_ID_CHARACTERS, SCOPE_SQL, check_scope, to_utc
from memory.texts import CONFIGURATIONS, add_unaccented_words

log = get_logger(__name__)

MAX_NOTE_CHARACTERS: Final = 4_000
MAX_QUERY_CHARACTERS: Final = 1_000
MAX_LIMIT: Final = 100
MAX_LISTED: Final = 1_000
SWEEP_BATCH: Final = 500
SWEEP_BATCH_SCOPES: Final = 20
# The advisory lock of the sweep; any fixed number will do.
SWEEP_LOCK_ID: Final = 0x73_77_65_65_70

KNOWN_SQL: Final = """
SELECT coalesce(bool_or(agent = %(agent)s AND digest = %(digest)s), false) AS known, count(*) AS kept
FROM memory.notes WHERE scope = %(scope)s AND type = %(type)s
"""
# Trimming comes before writing, so that it never deletes the new note, which has no uses yet.
TRIM_SQL: Final = """
DELETE FROM memory.notes WHERE scope = %(scope)s AND type = %(type)s AND (
    remembered_at <= %(oldest)s
    OR id NOT IN (
        SELECT id FROM memory.notes
        WHERE scope = %(scope)s AND type = %(type)s AND remembered_at > %(oldest)s
        ORDER BY uses DESC, greatest(used_at, remembered_at) DESC, id DESC LIMIT %(kept)s
    )
)
"""
# A note that had expired starts anew, without uses.
REMEMBER_SQL: Final = """
INSERT INTO memory.notes (scope, type, agent, key, text, digest, search, remembered_at, used_at)
VALUES (%(scope)s, %(type)s, %(agent)s, %(key)s, %(text)s, %(digest)s,
        to_tsvector(%(configuration)s::regconfig, %(words)s), %(now)s, %(now)s)
ON CONFLICT (scope, type, agent, digest) DO UPDATE SET
    text = excluded.text, search = excluded.search, remembered_at = excluded.remembered_at,
    uses = CASE WHEN notes.remembered_at > %(oldest)s THEN notes.uses ELSE 0 END
RETURNING id, type, agent, key, text, remembered_at, uses
"""
_OF_KEY: Final = """
WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
  AND type = %(type)s AND agent = %(agent)s AND digest = %(digest)s AND remembered_at > %(oldest)s
"""
GET_SQL: Final = f"""
UPDATE memory.notes SET uses = uses + 1, used_at = %(now)s {_OF_KEY}
RETURNING id, type, agent, key, text, remembered_at, uses
"""  # noqa: S608  # constants alone
DELETE_SQL: Final = f"DELETE FROM memory.notes {_OF_KEY}"  # noqa: S608  # constants alone
LIST_SQL: Final = """
SELECT notes.id, type, agent, key, text, remembered_at, uses FROM memory.notes
JOIN unnest(%(types)s::text[], %(oldest)s::timestamptz[]) AS policy (type, oldest) USING (type)
WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
  AND remembered_at > oldest AND (%(agent)s = '' OR agent = %(agent)s)
ORDER BY remembered_at DESC, id DESC LIMIT %(limit)s
"""
# The question is parsed in every language, as in memory/retrievers.py. A concurrent recall's lock is not
# waited for, because a use that goes uncounted does no harm.
RECALL_SQL: Final = """
WITH words AS MATERIALIZED (
    SELECT string_agg(
        '''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''', '|'
    )::tsquery AS query
    FROM (SELECT lexeme FROM unnest(to_tsvector('english', %(words)s))
          UNION SELECT lexeme FROM unnest(to_tsvector('portuguese', %(words)s))
          UNION SELECT lexeme FROM unnest(to_tsvector('spanish', %(words)s))) AS languages
), found AS MATERIALIZED (
    SELECT notes.id, type, text, remembered_at, coalesce(ts_rank(search, query, 1), 0)::float8 AS score
    FROM memory.notes
    JOIN unnest(%(types)s::text[], %(oldest)s::timestamptz[]) AS policy (type, oldest) USING (type)
    CROSS JOIN words
    WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
      AND remembered_at > oldest AND (agent = %(agent)s OR type = 'shared')
      AND (%(words)s = '' OR search @@ query)
    ORDER BY score DESC, remembered_at DESC, id DESC LIMIT %(limit)s
), free AS (
    SELECT id FROM memory.notes WHERE id IN (SELECT id FROM found) FOR UPDATE SKIP LOCKED
), counted AS (
    UPDATE memory.notes SET uses = uses + 1, used_at = %(now)s WHERE id IN (SELECT id FROM free)
)
SELECT * FROM found ORDER BY score DESC, remembered_at DESC, id DESC
"""


# A sweep deletes expired notes, and trims what a lowered capacity left too many. One service sweeps at a
# time.
TRY_LOCK_SQL: Final = "SELECT pg_try_advisory_xact_lock(%s) AS is_held"
DELETE_EXPIRED_SQL: Final = """
DELETE FROM memory.notes WHERE id IN (
    SELECT id FROM memory.notes WHERE type = %s AND remembered_at <= %s
    ORDER BY remembered_at LIMIT %s FOR UPDATE SKIP LOCKED
)
"""
FIND_OVERFULL_SQL: Final = """
SELECT scope, type FROM memory.notes GROUP BY scope, type HAVING count(*) > %s
ORDER BY scope, type LIMIT %s
"""
# Trimming locks the scope first, as writers of notes do.
LOCK_SCOPE_SQL: Final = "SELECT FROM memory.scopes WHERE id = %s FOR NO KEY UPDATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotePolicies:
    """How long notes are kept, and how many.

    Attributes:
        retention: How long, by type.
        capacity: The most notes of a type for a contact.
        kept: How many notes trimming leaves.
    """

    retention: dict[NoteType, timedelta]
    capacity: int
    kept: int

    @classmethod
    def from_settings(cls, settings: MemorySettings) -> Self:
        """Read the policies from the settings."""
        return cls(
            retention={
                "short_term": timedelta(hours=settings.short_term_hours),
                "working": timedelta(hours=settings.working_hours),
                "long_term": timedelta(days=settings.long_term_days),
                "shared": timedelta(days=settings.shared_days),
            },
            capacity=settings.capacity,
            kept=settings.kept_when_full,
        )


async def remember(
    pool: Pool,
    scope: Scope,
    text: str,
    *,
    kind: NoteType,
    agent: str,
    policies: NotePolicies,
    key: str = "",
    now: datetime | None = None,
) -> Note:
    """Store a note; see :meth:`core.memory.Memory.remember`.

    Args:
        pool: The service's pool.
        scope: Whose memory.
        text: The note.
        kind: Its type.
        agent: The agent that writes it.
        policies: How long notes are kept, and how many.
        key: Under which it is kept; empty: none.
        now: The current time, for tests.

    Raises:
        MemoryRefused: The note, its type, its agent or its key is not valid.
    """
    note = text.strip()
    _check_owner(scope, kind, agent)
    if key:
        _check_key(key)
    if not 0 < len(note) <= MAX_NOTE_CHARACTERS or not is_storable(note):
        raise MemoryRefused(f"a note must have 1 to {MAX_NOTE_CHARACTERS} characters, and no NUL")
    now = now or datetime.now(UTC)
    parameters = {
        "type": kind,
        "agent": agent,
        "key": key,
        "text": note,
        "digest": _compute_key_digest(key) if key else hashlib.sha256(note.encode()).digest(),
        "configuration": CONFIGURATIONS[detect_language(note)],
        "words": add_unaccented_words(note),
        "now": now,
        "oldest": now - policies.retention[kind],
        "kept": policies.kept,
    }
    async with pool.connection() as connection, connection.transaction():
        row = await (await connection.execute(SCOPE_SQL, (scope.tenant, scope.contact_id))).fetchone()
        assert row  # noqa: S101  # an upsert returns its row
        return await _write_note(connection, {**parameters, "scope": row["id"]}, policies.capacity)


async def _write_note(connection: Connection, parameters: dict[str, object], capacity: int) -> Note:
    state = await (await connection.execute(KNOWN_SQL, parameters)).fetchone()
    if state and not state["known"] and state["kept"] >= capacity:
        await connection.execute(TRIM_SQL, parameters)
    row = await (await connection.execute(REMEMBER_SQL, parameters)).fetchone()
    assert row  # noqa: S101  # an upsert returns its row
    return _parse_note(row)


async def get_note(
    pool: Pool, scope: Scope, key: str, *, kind: NoteType, agent: str, policies: NotePolicies
) -> Note | None:
    """Return the note under a key; see :meth:`core.memory.Memory.get_note`."""
    parameters = _identify_note(scope, key, kind, agent, policies)
    async with pool.connection() as connection:
        row = await (await connection.execute(GET_SQL.encode(), parameters)).fetchone()
    return _parse_note(row) if row else None


async def delete_note(
    pool: Pool, scope: Scope, key: str, *, kind: NoteType, agent: str, policies: NotePolicies
) -> bool:
    """Delete the note under a key; see :meth:`core.memory.Memory.delete_note`."""
    parameters = _identify_note(scope, key, kind, agent, policies)
    async with pool.connection() as connection:
        return bool((await connection.execute(DELETE_SQL.encode(), parameters)).rowcount)


def _identify_note(
    scope: Scope, key: str, kind: NoteType, agent: str, policies: NotePolicies
) -> dict[str, object]:
    _check_owner(scope, kind, agent)
    _check_key(key)
    now = datetime.now(UTC)
    return {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "type": kind,
        "agent": agent,
        "digest": _compute_key_digest(key),
        "now": now,
        "oldest": now - policies.retention[kind],
    }


def _compute_key_digest(key: str) -> bytes:
    # No text has this digest, because a text holds no NUL.
    return hashlib.sha256(b"key\0" + key.encode()).digest()


def _parse_note(row: DictRow) -> Note:
    return Note(**{**row, "id": str(row["id"]), "remembered_at": to_utc(row["remembered_at"])})


async def list_notes(
    pool: Pool, scope: Scope, *, kind: NoteType | None, agent: str, limit: int, policies: NotePolicies
) -> list[Note]:
    """Return the notes of all agents; see :meth:`core.memory.Memory.list_notes`.

    Raises:
        MemoryRefused: The scope, the type or the agent is not valid, or the limit is out of range.
    """
    check_scope(scope)
    if agent:
        _check_agent(agent)
    if kind:
        _check_type(kind)
    if not 1 <= limit <= MAX_LISTED:
        raise MemoryRefused(f"limit must be from 1 to {MAX_LISTED}")
    types: list[NoteType] = [kind] if kind else list(policies.retention)
    now = datetime.now(UTC)
    parameters = {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "agent": agent,
        "types": types,
        "oldest": [now - policies.retention[each] for each in types],
        "limit": limit,
    }
    async with pool.connection() as connection:
        rows = await (await connection.execute(LIST_SQL, parameters)).fetchall()
    return [_parse_note(row) for row in rows]


async def recall(
    pool: Pool,
    scope: Scope,
    query: str,
    *,
    agent: str,
    limit: int,
    policies: NotePolicies,
    now: datetime | None = None,
) -> list[Hit]:
    """Return notes on a question that the agent may see; see :meth:`core.memory.Memory.recall`.

    Raises:
        MemoryRefused: The scope or the agent is not valid, or the limit is out of range.
    """
    check_scope(scope)
    _check_agent(agent)
    if not 1 <= limit <= MAX_LIMIT:
        raise MemoryRefused(f"limit must be from 1 to {MAX_LIMIT}")
    now = now or datetime.now(UTC)
    parameters = {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "agent": agent,
        "words": add_unaccented_words(make_storable(query)[:MAX_QUERY_CHARACTERS].strip()),
        "types": list(policies.retention),
        "oldest": [now - duration for duration in policies.retention.values()],
        "now": now,
        "limit": limit,
    }
    async with pool.connection() as connection:
        rows = await (await connection.execute(RECALL_SQL, parameters)).fetchall()
    return _parse_hits(rows)


def _parse_hits(rows: Sequence[DictRow]) -> list[Hit]:
    return [
        Hit(
            kind="item",
            id=str(row["id"]),
            text=row["text"],
            at=to_utc(row["remembered_at"]),
            session_id="",
            score=row["score"],
            ranks=(RetrieverRank(row["type"], rank, row["score"]),),
        )
        for rank, row in enumerate(rows, start=1)
    ]


class NoteSweeper:
    """Deletes expired and superfluous notes.

    Writers keep to the capacity and readers ignore expired notes, so a sweep that fails or comes late costs
    only space.

    Args:
        pool: The service's pool.
        policies: How long notes are kept, and how many.
    """

    def __init__(self, pool: Pool, policies: NotePolicies) -> None:
        self._pool = pool
        self._policies = policies

    async def sweep(self, now: datetime | None = None) -> int:
        """Delete what has expired by ``now``, in small transactions.

        Returns:
            How many notes were deleted; 0 if another service is sweeping.

        Raises:
            MemoryUnavailable: The database cannot be reached.
        """
        deleted = 0
        with translate_errors():
            while batch := await self._sweep_batch(now or datetime.now(UTC)):
                deleted += batch
        if deleted:
            log.info("memory_swept", deleted=deleted)
        return deleted

    async def _sweep_batch(self, now: datetime) -> int:
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(TRY_LOCK_SQL, (SWEEP_LOCK_ID,))).fetchone()
            if not row or not row["is_held"]:
                return 0
            return await self._delete_expired(connection, now) or await self._trim(connection, now)

    async def _delete_expired(self, connection: Connection, now: datetime) -> int:
        deleted = 0
        for kind, duration in self._policies.retention.items():
            if deleted < SWEEP_BATCH:
                parameters = (kind, now - duration, SWEEP_BATCH - deleted)
                deleted += (await connection.execute(DELETE_EXPIRED_SQL, parameters)).rowcount
        return deleted

    async def _trim(self, connection: Connection, now: datetime) -> int:
        parameters = (self._policies.capacity, SWEEP_BATCH_SCOPES)
        deleted = 0
        for row in await (await connection.execute(FIND_OVERFULL_SQL, parameters)).fetchall():
            await connection.execute(LOCK_SCOPE_SQL, (row["scope"],))
            oldest = now - self._policies.retention[row["type"]]
            trim = {**row, "oldest": oldest, "kept": self._policies.kept}
            deleted += (await connection.execute(TRIM_SQL, trim)).rowcount
        return deleted


def _check_owner(scope: Scope, kind: NoteType, agent: str) -> None:
    check_scope(scope)
    _check_agent(agent)
    _check_type(kind)


def _check_type(kind: NoteType) -> None:
    if kind not in get_args(NoteType):
        raise MemoryRefused(f"type {kind!r} is not known; there are {', '.join(get_args(NoteType))}")


def _check_key(key: str) -> None:
    if not 0 < len(key) <= MAX_ID_CHARACTERS or not is_storable(key):
        raise MemoryRefused(f"key must have 1 to {MAX_ID_CHARACTERS} characters")


def _check_agent(agent: str) -> None:
    if not 0 < len(agent) <= MAX_ID_CHARACTERS or not is_storable(agent):
        raise MemoryRefused(f"agent must have 1 to {MAX_ID_CHARACTERS} characters")
