"""Notes of agents, with a type that says how long they are kept and who sees them.

How they stand to the rest. A *message* is what was said, a *fact* what was learnt from it: both are evidence,
kept until they are forgotten on purpose, and shared by all agents of the contact anyway. A *note* (item) is
what an agent wants to have at hand and may lose: a half-done step (short-term, 1 h), the case in work
(working, 24 h), how this contact likes to be served (long-term, 30 d). These are the agent's own: another
agent would take its scratch for knowledge. What other agents are to see is written as ``shared`` (7 d), which
is how a hand-over speaks. So nothing that must last or be proved is an item, and trimming and sweeping can
never lose evidence; a note that turns out to be true for good is told as a fact, with its message.

Retention is applied on reading, with the settings of the day; the sweeper only frees the space.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self, get_args

from psycopg.rows import DictRow

from core.errors import MemoryRefused
from core.memory import Hit, Note, NoteType, RetrieverRank, Scope
from core.postgres import Connection, Pool
from core.settings import MemorySettings
from core.texts import detect_language, is_storable, make_storable
from memory.messages import MAX_ID_CHARACTERS, SCOPE_SQL, check_scope, to_utc
from memory.texts import CONFIGURATIONS, add_unaccented_words

MAX_NOTE_CHARACTERS: Final = 4_000
MAX_QUERY_CHARACTERS: Final = 1_000
MAX_LIMIT: Final = 100

KNOWN_SQL: Final = """
SELECT coalesce(bool_or(agent = %(agent)s AND digest = %(digest)s), false) AS known, count(*) AS kept
FROM memory.items WHERE scope = %(scope)s AND type = %(type)s
"""
# Room is made before a note is written, so that a new one, not used yet, is never what is trimmed.
TRIM_SQL: Final = """
DELETE FROM memory.items WHERE scope = %(scope)s AND type = %(type)s AND (
    remembered_at <= %(oldest)s
    OR id NOT IN (
        SELECT id FROM memory.items
        WHERE scope = %(scope)s AND type = %(type)s AND remembered_at > %(oldest)s
        ORDER BY uses DESC, greatest(used_at, remembered_at) DESC, id DESC LIMIT %(kept)s
    )
)
"""
# A note whose time was over starts anew, with no uses.
REMEMBER_SQL: Final = """
INSERT INTO memory.items (scope, type, agent, text, digest, search, remembered_at, used_at)
VALUES (%(scope)s, %(type)s, %(agent)s, %(text)s, %(digest)s,
        to_tsvector(%(configuration)s::regconfig, %(words)s), %(now)s, %(now)s)
ON CONFLICT (scope, type, agent, digest) DO UPDATE SET
    remembered_at = excluded.remembered_at,
    uses = CASE WHEN items.remembered_at > %(oldest)s THEN items.uses ELSE 0 END
RETURNING id, type, agent, text, remembered_at, uses
"""
# The question is read in both languages, as in memory/legs.py. A use that another recall counts at the same
# moment is not waited for: it is a count, not an account.
RECALL_SQL: Final = """
WITH words AS MATERIALIZED (
    SELECT string_agg(
        '''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''', '|'
    )::tsquery AS query
    FROM (SELECT lexeme FROM unnest(to_tsvector('english', %(words)s))
          UNION SELECT lexeme FROM unnest(to_tsvector('portuguese', %(words)s))) AS both_languages
), found AS MATERIALIZED (
    SELECT items.id, type, text, remembered_at, coalesce(ts_rank(search, query, 1), 0)::float8 AS score
    FROM memory.items
    JOIN unnest(%(types)s::text[], %(oldest)s::timestamptz[]) AS policy (type, oldest) USING (type)
    CROSS JOIN words
    WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
      AND remembered_at > oldest AND (agent = %(agent)s OR type = 'shared')
      AND (%(words)s = '' OR search @@ query)
    ORDER BY score DESC, remembered_at DESC, id DESC LIMIT %(limit)s
), free AS (
    SELECT id FROM memory.items WHERE id IN (SELECT id FROM found) FOR UPDATE SKIP LOCKED
), counted AS (
    UPDATE memory.items SET uses = uses + 1, used_at = %(now)s WHERE id IN (SELECT id FROM free)
)
SELECT * FROM found ORDER BY score DESC, remembered_at DESC, id DESC
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """How long notes are kept, and how many.

    Attributes:
        retention: For each type.
        capacity: Most notes of a type for a contact.
        kept: How many trimming leaves.
    """

    retention: dict[NoteType, timedelta]
    capacity: int
    kept: int

    @classmethod
    def of(cls, settings: MemorySettings) -> Self:
        """As the settings say."""
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
    policies: Policies,
    now: datetime | None = None,
) -> Note:
    """Keep a note; see :class:`core.memory.Memory`.

    Args:
        pool: The service's pool.
        scope: Whose memory.
        text: The note.
        kind: Its type.
        agent: Who writes it.
        policies: How long notes are kept, and how many.
        now: The time; None: the clock's.

    Raises:
        MemoryRefused: The note, its type or its agent do not fit.
    """
    note = text.strip()
    _check_note(scope, note, kind, agent)
    now = now or datetime.now(UTC)
    parameters = {
        "type": kind,
        "agent": agent,
        "text": note,
        "digest": hashlib.sha256(note.encode()).digest(),
        "configuration": CONFIGURATIONS[detect_language(note)],
        "words": add_unaccented_words(note),
        "now": now,
        "oldest": now - policies.retention[kind],
        "kept": policies.kept,
    }
    async with pool.connection() as connection, connection.transaction():
        row = await (await connection.execute(SCOPE_SQL, (scope.tenant, scope.contact_id))).fetchone()
        assert row  # noqa: S101  # an upsert returns its row
        return await _write(connection, {**parameters, "scope": row["id"]}, policies.capacity)


async def _write(connection: Connection, parameters: dict[str, object], capacity: int) -> Note:
    state = await (await connection.execute(KNOWN_SQL, parameters)).fetchone()
    if state and not state["known"] and state["kept"] >= capacity:
        await connection.execute(TRIM_SQL, parameters)
    row = await (await connection.execute(REMEMBER_SQL, parameters)).fetchone()
    assert row  # noqa: S101  # an upsert returns its row
    return Note(**{**row, "id": str(row["id"]), "remembered_at": to_utc(row["remembered_at"])})


async def recall(
    pool: Pool,
    scope: Scope,
    query: str,
    *,
    agent: str,
    limit: int,
    policies: Policies,
    now: datetime | None = None,
) -> list[Hit]:
    """The notes an agent may see that have to do with a question; see :class:`core.memory.Memory`.

    Raises:
        MemoryRefused: The scope or the agent names nobody, or the limit is none.
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
        "oldest": [now - kept for kept in policies.retention.values()],
        "now": now,
        "limit": limit,
    }
    async with pool.connection() as connection:
        rows = await (await connection.execute(RECALL_SQL, parameters)).fetchall()
    return _hits(rows)


def _hits(rows: Sequence[DictRow]) -> list[Hit]:
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


def _check_note(scope: Scope, note: str, kind: NoteType, agent: str) -> None:
    check_scope(scope)
    _check_agent(agent)
    if kind not in get_args(NoteType):
        raise MemoryRefused(f"type {kind!r} is not known; there are {', '.join(get_args(NoteType))}")
    if not 0 < len(note) <= MAX_NOTE_CHARACTERS or not is_storable(note):
        raise MemoryRefused(f"a note must have 1 to {MAX_NOTE_CHARACTERS} characters, and no NUL")


def _check_agent(agent: str) -> None:
    if not 0 < len(agent) <= MAX_ID_CHARACTERS or not is_storable(agent):
        raise MemoryRefused(f"agent must have 1 to {MAX_ID_CHARACTERS} characters")
