"""Writing to tables with two times: versions are added and closed, none is changed or deleted.

What facts and edges have in common. A writer holds the lock of the contact's row in ``memory.scopes``
(:data:`memory.messages.SCOPE_SQL`), so writers of one contact take turns, and see what the last one wrote;
the constraints of the tables hold whoever writes.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias
from unicodedata import normalize

from psycopg import sql
from psycopg.rows import DictRow

from core.memory import Scope
from core.postgres import Connection
from core.texts import strip_accents
from memory.messages import SCOPE_SQL
from memory.timelines import Period, Plan

Table: TypeAlias = Literal["facts", "edges"]

# The database's clock, but later than anything the contact's memory has: what was believed at a moment that
# has passed never changes, though the clock be set back.
MOMENT_SQL: Final = """
SELECT greatest(clock_timestamp(),
    (SELECT max(greatest(recorded_at, superseded_at)) FROM memory.facts WHERE scope = %(scope)s)
        + interval '1 microsecond',
    (SELECT max(greatest(recorded_at, superseded_at)) FROM memory.edges WHERE scope = %(scope)s)
        + interval '1 microsecond') AS moment
"""
LINE_SQL: Final = """
WITH known AS (SELECT id FROM memory.lines WHERE scope = %(scope)s AND key = %(key)s),
added AS (
    INSERT INTO memory.lines (scope, key) SELECT %(scope)s, %(key)s WHERE NOT EXISTS (SELECT FROM known)
    RETURNING id
)
SELECT id FROM known UNION ALL SELECT id FROM added
"""
STATEMENT_SQL: Final = """
SELECT origin FROM memory.statements
WHERE line = %s AND source_message_id = %s AND value = %s AND ended = %s
"""
INSERT_STATEMENT_SQL: Final = """
INSERT INTO memory.statements
    (scope, line, source_message_id, value, ended, confidence, origin, recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_BELIEVED: Final = """
SELECT id, {value} AS value, valid_from, valid_to FROM {table}
WHERE line = %s AND superseded_at IS NULL ORDER BY valid_from, id
"""
_SUPERSEDE: Final = "UPDATE {table} SET superseded_at = %s, superseded_by = %s WHERE id = ANY(%s)"
_COPY: Final = """
INSERT INTO {table} ({columns}, valid_from, valid_to, recorded_at)
SELECT {columns}, %s, %s, %s FROM {table} WHERE id = %s RETURNING id
"""
_VERSION: Final = "SELECT origin FROM {table} WHERE id = %s"
# The one believed, else the last that was.
_LATEST: Final = """
SELECT id FROM {table} WHERE origin = %s
ORDER BY superseded_at DESC NULLS FIRST, id DESC LIMIT 1
"""

_KEPT: Final[dict[Table, tuple[str, ...]]] = {
    "facts": (
        "scope",
        "line",
        "origin",
        "subject",
        "subject_key",
        "predicate",
        "object",
        "scope_key",
        "confidence",
        "source_message_id",
    ),
    "edges": ("scope", "line", "origin", "source", "type", "target", "source_message_id"),
}
_VALUE: Final[dict[Table, str]] = {"facts": "object", "edges": "target"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """That a message says a value of a line."""

    scope: int
    line: int
    message: str
    value: str
    ended: bool
    confidence: float = 1.0


@dataclass(slots=True)
class Clock:
    """Moments of transaction time of one writer: each call of :meth:`tick` gives a later one."""

    moment: datetime

    def tick(self) -> datetime:
        """The next moment."""
        self.moment += timedelta(microseconds=1)
        return self.moment


def folded(text: str) -> str:
    """The text as it is compared: without accents, case, surrounding marks and superfluous space."""
    return " ".join(strip_accents(normalize("NFKC", text)).casefold().split()).strip(" .,;:!?\"'")


def line_key(*names: str) -> bytes:
    """The key of the line with these names."""
    return hashlib.sha256(json.dumps(names).encode()).digest()


async def lock_scope(connection: Connection, scope: Scope) -> tuple[int, Clock]:
    """The scope's id and its clock; other writers of the scope wait until the transaction ends."""
    row = await (await connection.execute(SCOPE_SQL, (scope.tenant, scope.contact_id))).fetchone()
    assert row  # noqa: S101  # an upsert returns its row
    moment = await (await connection.execute(MOMENT_SQL, {"scope": row["id"]})).fetchone()
    assert moment  # noqa: S101  # one row, always
    return row["id"], Clock(moment["moment"])


async def line_of(connection: Connection, scope: int, key: bytes) -> int:
    """The line's number, made where it is new."""
    row = await (await connection.execute(LINE_SQL, {"scope": scope, "key": key})).fetchone()
    assert row  # noqa: S101  # either half gives it
    return int(row["id"])


async def said_before(connection: Connection, table: Table, statement: Statement) -> int | None:
    """The row a statement led to, as it is now, where the same message has made it before."""
    parameters = (statement.line, statement.message, _digest(statement.value), statement.ended)
    row = await (await connection.execute(STATEMENT_SQL, parameters)).fetchone()
    if row is None:
        return None
    latest = await (await connection.execute(_sql(_LATEST, table), (row["origin"],))).fetchone()
    return int(latest["id"]) if latest else None


async def believed(connection: Connection, table: Table, line: int) -> list[Period]:
    """What is believed of a line, in the order of valid time."""
    rows = await (await connection.execute(_sql(_BELIEVED, table), (line,))).fetchall()
    return [_period(row) for row in rows]


async def close_and_copy(
    connection: Connection, table: Table, plan: Plan, moment: datetime, message: str
) -> dict[int, int]:
    """Carry out a plan, but for its new row.

    Returns:
        For each row that was written again the id it has now.
    """
    if plan.superseded:
        parameters = (moment, message, list(plan.superseded))
        await connection.execute(_sql(_SUPERSEDE, table), parameters)
    copied = {}
    for copy in plan.copies:
        written = await connection.execute(_sql(_COPY, table), (copy.start, copy.end, moment, copy.row))
        row = await written.fetchone()
        assert row  # noqa: S101  # its original is there
        copied[copy.row] = int(row["id"])
    return copied


async def note(
    connection: Connection, table: Table, statement: Statement, row: int, moment: datetime
) -> None:
    """Remember that a message made a statement, and what it led to."""
    version = await (await connection.execute(_sql(_VERSION, table), (row,))).fetchone()
    assert version  # noqa: S101  # it was just written or read
    await connection.execute(
        INSERT_STATEMENT_SQL,
        (
            statement.scope,
            statement.line,
            statement.message,
            _digest(statement.value),
            statement.ended,
            statement.confidence,
            version["origin"],
            moment,
        ),
    )


def _period(row: DictRow) -> Period:
    value = row["value"]
    return Period(
        row=row["id"],
        value=folded(value) if isinstance(value, str) else str(value),
        start=row["valid_from"],
        end=row["valid_to"],
    )


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _sql(template: str, table: Table) -> sql.Composed:
    return sql.SQL(template).format(
        table=sql.Identifier("memory", table),
        value=sql.Identifier(_VALUE[table]),
        columns=sql.SQL(", ").join(sql.Identifier(column) for column in _KEPT[table]),
    )


def said_by(plan: Plan, copied: dict[int, int]) -> int:
    """The row that says now what was known already."""
    assert plan.known is not None  # noqa: S101  # a plan adds or knows
    return copied.get(plan.known, plan.known)
