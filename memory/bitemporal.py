"""Bitemporal tables: what facts and edges share. Versions are added and closed, never changed or deleted.

A writer locks the contact's row in ``memory.scopes`` (:data:`memory.messages.SCOPE_SQL`), so that writers of
one contact take turns and each sees what the previous one wrote. The tables' constraints hold for every
writer.
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

# The database's clock, but later than every time in the contact's memory: beliefs of the past must not change
# even if the clock is set back.
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
_BELIEVED_SQL: Final = """
SELECT id, {value} AS value, valid_from, valid_to FROM {table}
WHERE line = %s AND superseded_at IS NULL ORDER BY valid_from, id
"""
_SUPERSEDE_SQL: Final = "UPDATE {table} SET superseded_at = %s, superseded_by = %s WHERE id = ANY(%s)"
_COPY_SQL: Final = """
INSERT INTO {table} ({columns}, valid_from, valid_to, recorded_at)
SELECT {columns}, %s, %s, %s FROM {table} WHERE id = %s RETURNING id
"""
_ORIGIN_SQL: Final = "SELECT origin FROM {table} WHERE id = %s"
# The version that is believed, or else the last that was.
_LATEST_SQL: Final = """
SELECT id FROM {table} WHERE origin = %s
ORDER BY superseded_at DESC NULLS FIRST, id DESC LIMIT 1
"""

_COPIED_COLUMNS: Final[dict[Table, tuple[str, ...]]] = {
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
_VALUE_COLUMNS: Final[dict[Table, str]] = {"facts": "object", "edges": "target"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A message's statement about a line."""

    scope: int
    line: int
    message: str
    value: str
    ended: bool
    confidence: float = 1.0


@dataclass(slots=True)
class Clock:
    """The transaction time of one writer, which advances with each :meth:`tick`."""

    moment: datetime

    def tick(self) -> datetime:
        """Advance the clock and return its time."""
        self.moment += timedelta(microseconds=1)
        return self.moment


def fold_text(text: str) -> str:
    """Return the form in which texts are compared: without accents, case, outer marks and extra space."""
    return " ".join(strip_accents(normalize("NFKC", text)).casefold().split()).strip(" .,;:!?\"'")


def build_line_key(*names: str) -> bytes:
    """Return the key of the line with these names."""
    return hashlib.sha256(json.dumps(names).encode()).digest()


async def lock_scope(connection: Connection, scope: Scope) -> tuple[int, Clock]:
    """Lock the scope until the transaction ends, and return its id and clock."""
    row = await (await connection.execute(SCOPE_SQL, (scope.tenant, scope.contact_id))).fetchone()
    assert row  # noqa: S101  # an upsert returns its row
    moment = await (await connection.execute(MOMENT_SQL, {"scope": row["id"]})).fetchone()
    assert moment  # noqa: S101  # one row, always
    return row["id"], Clock(moment["moment"])


async def get_line(connection: Connection, scope: int, key: bytes) -> int:
    """Return the line's id, after creating the line if it is new."""
    row = await (await connection.execute(LINE_SQL, {"scope": scope, "key": key})).fetchone()
    assert row  # noqa: S101  # either half gives it
    return int(row["id"])


async def find_repeated_row(connection: Connection, table: Table, statement: Statement) -> int | None:
    """Return the current row of a statement that the same message made before; None if it is new."""
    parameters = (statement.line, statement.message, _digest(statement.value), statement.ended)
    row = await (await connection.execute(STATEMENT_SQL, parameters)).fetchone()
    if row is None:
        return None
    latest = await (await connection.execute(_format_sql(_LATEST_SQL, table), (row["origin"],))).fetchone()
    return int(latest["id"]) if latest else None


async def load_believed(connection: Connection, table: Table, line: int) -> list[Period]:
    """Return what is believed of a line, in the order of valid time."""
    rows = await (await connection.execute(_format_sql(_BELIEVED_SQL, table), (line,))).fetchall()
    return [_period(row) for row in rows]


async def apply_plan(
    connection: Connection, table: Table, plan: Plan, moment: datetime, message: str
) -> dict[int, int]:
    """Close and copy rows as planned; the caller inserts the new row.

    Returns:
        The new id of each row that was copied.
    """
    if plan.superseded:
        parameters = (moment, message, list(plan.superseded))
        await connection.execute(_format_sql(_SUPERSEDE_SQL, table), parameters)
    copied = {}
    for copy in plan.copies:
        written = await connection.execute(
            _format_sql(_COPY_SQL, table), (copy.start, copy.end, moment, copy.row)
        )
        row = await written.fetchone()
        assert row  # noqa: S101  # its original is there
        copied[copy.row] = int(row["id"])
    return copied


async def record_statement(
    connection: Connection, table: Table, statement: Statement, row: int, moment: datetime
) -> None:
    """Record that a message made a statement, and the row it led to."""
    version = await (await connection.execute(_format_sql(_ORIGIN_SQL, table), (row,))).fetchone()
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
        value=fold_text(value) if isinstance(value, str) else str(value),
        start=row["valid_from"],
        end=row["valid_to"],
    )


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _format_sql(template: str, table: Table) -> sql.Composed:
    return sql.SQL(template).format(
        table=sql.Identifier("memory", table),
        value=sql.Identifier(_VALUE_COLUMNS[table]),
        columns=sql.SQL(", ").join(sql.Identifier(column) for column in _COPIED_COLUMNS[table]),
    )


def resolve_known_row(plan: Plan, copied: dict[int, int]) -> int:
    """Return the current row of what was known already."""
    assert plan.known is not None  # noqa: S101  # a plan has a new row or a known one
    return copied.get(plan.known, plan.known)
