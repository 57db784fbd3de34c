"""Facts: what is believed of a contact, in valid time and in transaction time.

- A repetition adds a statement, and thereby confidence (noisy-or of the statements); no row changes.
- A change over time closes the belief and writes it again, ending when the change began.
- A correction closes the belief, because it was never true. Its row stays, with the message that corrected
it.

A statement only ever closes a fact with the same subject, predicate and scope key. If the predicate may have
several values, it only closes the value that it says has ended or was wrong. Similarity of texts does not
matter.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from psycopg.rows import DictRow

from core.errors import MemoryRefused
from core.memory import Fact, FactChange, NewFact, Scope
from core.memory.vocabulary import Vocabulary, normalise_predicate
from core.postgres import Connection, Pool
from core.texts import is_storable
from memory.bitemporal import (
    Clock,
    Statement,
    apply_plan,
    build_line_key,
    find_repeated_row,
    fold_text,
    get_line,
    load_believed,
    lock_scope,
    record_statement,
    resolve_known_row,
)
from memory.messages import MAX_ID_CHARACTERS, check_scope, to_utc
from memory.timelines import Period, Plan, find_corrected, plan_correction, plan_end, plan_statement

MAX_FACTS: Final = 200
MAX_LISTED: Final = 1_000
MAX_NAME_CHARACTERS: Final = 200
MAX_OBJECT_CHARACTERS: Final = 1_000

STATED_AT_SQL: Final = "SELECT id, at FROM memory.messages WHERE scope = %s AND id = ANY(%s)"
INSERT_SQL: Final = """
INSERT INTO memory.facts (scope, line, subject, subject_key, predicate, object, scope_key, confidence,
                          source_message_id, valid_from, valid_to, recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
"""
# Statements made after the time in question do not count. Confidences combine as 1 - (1-a)(1-b).
_COLUMNS: Final = """
SELECT facts.id, subject, predicate, object, scope_key, source_message_id, valid_from, valid_to, recorded_at,
       superseded_at, superseded_by, coalesce((
           SELECT round((1 - exp(sum(ln(greatest(1 - confidence, 1e-9)))))::numeric, 6)::float8
           FROM memory.statements
           WHERE statements.origin = facts.origin AND NOT ended
             AND statements.recorded_at <= {counted}
       ), confidence) AS confidence
FROM memory.facts
"""
_WHERE: Final = """
WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
  AND (%(subject)s = '' OR subject_key = %(subject)s) AND (%(predicate)s = '' OR predicate = %(predicate)s)
"""
BY_ID_SQL: Final = _COLUMNS.format(counted="'infinity'") + "WHERE scope = %s AND facts.id = ANY(%s)"
LIST_SQL: Final = (
    _COLUMNS.format(counted="%(believed_at)s::timestamptz")
    + _WHERE
    + """
  AND valid_from <= coalesce(%(valid_at)s, now())
  AND coalesce(valid_to, 'infinity') > coalesce(%(valid_at)s, now())
  AND recorded_at <= %(believed_at)s::timestamptz
  AND (superseded_at IS NULL OR superseded_at > %(believed_at)s::timestamptz)
ORDER BY subject_key, predicate, scope_key, valid_from, facts.id LIMIT %(limit)s
"""
)
HISTORY_SQL: Final = (
    _COLUMNS.format(counted="coalesce(facts.superseded_at, 'infinity')")
    + _WHERE
    + "ORDER BY facts.recorded_at DESC, facts.id DESC LIMIT %(limit)s"
)
# A concurrent writer may already have an earlier transaction time. Waiting for it makes its beliefs visible.
AWAIT_WRITERS_SQL: Final = "SELECT FROM memory.scopes WHERE tenant = %s AND contact_id = %s FOR SHARE"


async def upsert_facts(
    pool: Pool, scope: Scope, facts: Sequence[NewFact], *, vocabulary: Vocabulary
) -> list[FactChange]:
    """Store facts, all or none; see :meth:`core.memory.Memory.upsert_facts`.

    Args:
        pool: The service's pool.
        scope: Whose memory.
        facts: At most :data:`MAX_FACTS`.
        vocabulary: Which predicates have one value at a time.

    Raises:
        MemoryRefused: A fact cannot be stored; none is.
    """
    check_scope(scope)
    if len(facts) > MAX_FACTS:
        raise MemoryRefused(f"{len(facts)} facts at once; send at most {MAX_FACTS}")
    normalised = [_normalise_fact(fact) for fact in facts]
    if not normalised:
        return []
    async with pool.connection() as connection, connection.transaction():
        number, clock = await lock_scope(connection, scope)
        times = await _load_message_times(connection, number, normalised)
        writer = _FactWriter(connection, number, clock, vocabulary)
        changes = [
            await writer.write(fact, times.get(fact.source_message_id, clock.moment)) for fact in normalised
        ]
        ids = sorted({each for plan, row in changes for each in (row, plan.closed) if each is not None})
        rows = await (await connection.execute(BY_ID_SQL.encode(), (number, ids))).fetchall()
    stored = {row["id"]: _parse_fact(row) for row in rows}
    return [
        FactChange(
            fact=stored[row], outcome=plan.outcome, closed=stored[plan.closed] if plan.closed else None
        )
        for plan, row in changes
    ]


async def list_facts(
    pool: Pool,
    scope: Scope,
    *,
    subject: str = "",
    predicate: str = "",
    valid_at: datetime | None = None,
    believed_at: datetime | None = None,
) -> list[Fact]:
    """Return facts that held at one time, as believed at another; see :meth:`core.memory.Memory.list_facts`.

    A belief that ended after ``believed_at`` is returned as if it had not ended.

    Raises:
        MemoryRefused: A time has no time zone.
    """
    _check_times(valid_at=valid_at, believed_at=believed_at)
    parameters = _parameters(scope, subject, predicate) | {
        "valid_at": valid_at,
        "believed_at": believed_at or "infinity",
    }
    async with pool.connection() as connection:
        if believed_at:
            await connection.execute(AWAIT_WRITERS_SQL, (scope.tenant, scope.contact_id))
        rows = await (await connection.execute(LIST_SQL.encode(), parameters)).fetchall()
    return [replace(_parse_fact(row), superseded_at=None, superseded_by=None) for row in rows]


async def fact_history(pool: Pool, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:
    """Return everything ever believed, oldest belief first, but at most the last :data:`MAX_LISTED`."""
    parameters = _parameters(scope, subject, predicate)
    async with pool.connection() as connection:
        rows = await (await connection.execute(HISTORY_SQL.encode(), parameters)).fetchall()
    return [_parse_fact(row) for row in reversed(rows)]


def _parameters(scope: Scope, subject: str, predicate: str) -> dict[str, object]:
    check_scope(scope)
    return {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "subject": fold_text(subject),
        "predicate": normalise_predicate(predicate),
        "limit": MAX_LISTED,
    }


class _FactWriter:
    """Writes facts within a transaction that has locked the scope."""

    def __init__(self, connection: Connection, scope: int, clock: Clock, vocabulary: Vocabulary) -> None:
        self._connection = connection
        self._scope = scope
        self._clock = clock
        self._vocabulary = vocabulary

    async def write(self, fact: NewFact, stated_at: datetime) -> tuple[Plan, int]:
        """Write a fact, and return what changed and the row that states the fact now."""
        single = fact.predicate in self._vocabulary.predicates
        statement = Statement(
            scope=self._scope,
            line=await self._get_line(fact, "" if single else fact.object),
            message=fact.source_message_id,
            value=fold_text(fact.object),
            ended=fact.ended,
            confidence=fact.confidence,
        )
        repeated = await find_repeated_row(self._connection, "facts", statement)
        if repeated is not None:
            return Plan(outcome="repeated", known=repeated), repeated
        moment = self._clock.tick()
        periods = await load_believed(self._connection, "facts", statement.line)
        target = None if single else await self._find_corrected(fact, stated_at)
        plan = (
            _plan_fact(fact, stated_at, periods)
            if target is None
            else _plan_replacement(fact, target, periods)
        )
        row = await self._write_row(fact, statement.line, plan, moment)
        await record_statement(self._connection, "facts", statement, row, moment)
        return plan, row

    async def _find_corrected(self, fact: NewFact, stated_at: datetime) -> Period | None:
        """Return the value that a correction names as wrong, if each value has a line of its own."""
        if not (fact.correction and fact.instead_of) or fold_text(fact.instead_of) == fold_text(fact.object):
            return None
        line = await self._get_line(fact, fact.instead_of)
        return find_corrected(await load_believed(self._connection, "facts", line), stated_at)

    async def _write_row(self, fact: NewFact, line: int, plan: Plan, moment: datetime) -> int:
        copied = await apply_plan(self._connection, "facts", plan, moment, fact.source_message_id)
        if plan.new is None:
            return resolve_known_row(plan, copied)
        parameters = (
            self._scope,
            line,
            fact.subject,
            fold_text(fact.subject),
            fact.predicate,
            fact.object,
            fact.scope_key,
            fact.confidence,
            fact.source_message_id,
            plan.new.start,
            plan.new.end,
            moment,
        )
        row = await (await self._connection.execute(INSERT_SQL, parameters)).fetchone()
        assert row  # noqa: S101  # the INSERT returns one
        return int(row["id"])

    async def _get_line(self, fact: NewFact, value: str) -> int:
        names = (fact.subject, fact.predicate, fact.scope_key, value)
        return await get_line(self._connection, self._scope, build_line_key("fact", *map(fold_text, names)))


def _plan_fact(fact: NewFact, stated_at: datetime, periods: Sequence[Period]) -> Plan:
    value = fold_text(fact.object)
    if fact.ended:
        return plan_end(periods, value, fact.valid_from or stated_at)
    if fact.correction:
        wrong_value = fold_text(fact.instead_of)
        return plan_correction(periods, value, stated_at, start=fact.valid_from, instead_of=wrong_value)
    return plan_statement(periods, value, fact.valid_from or stated_at)


def _plan_replacement(fact: NewFact, target: Period, periods: Sequence[Period]) -> Plan:
    plan = plan_statement(periods, fold_text(fact.object), fact.valid_from or target.start, until=target.end)
    closed = (*plan.superseded, target.row)
    return replace(plan, outcome="corrected", superseded=closed, closed=target.row)


async def _load_message_times(
    connection: Connection, scope: int, facts: Sequence[NewFact]
) -> Mapping[str, datetime]:
    messages = sorted({fact.source_message_id for fact in facts})
    rows = await (await connection.execute(STATED_AT_SQL, (scope, messages))).fetchall()
    return {row["id"]: row["at"] for row in rows}


def _normalise_fact(fact: NewFact) -> NewFact:
    """Return the fact in the form in which it is stored.

    Raises:
        MemoryRefused: It cannot be stored.
    """
    normalised = replace(
        fact,
        subject=" ".join(fact.subject.split()),
        predicate=normalise_predicate(fact.predicate),
        object=" ".join(fact.object.split()),
        scope_key=fold_text(fact.scope_key),
    )
    if problem := _find_problem(normalised):
        raise MemoryRefused(f"fact {fact.predicate[:MAX_NAME_CHARACTERS]!r} {problem}")
    return normalised


def _find_problem(fact: NewFact) -> str | None:
    texts = (fact.subject, fact.predicate, fact.object, fact.scope_key, fact.instead_of)
    requirements = (
        *((name, 0 < len(text) <= limit) for name, text, limit in _list_lengths(fact)),
        (f"a scope_key of at most {MAX_NAME_CHARACTERS}", len(fact.scope_key) <= MAX_NAME_CHARACTERS),
        ("no characters that cannot be stored", all(map(is_storable, (*texts, fact.source_message_id)))),
        ("a confidence from 0 to 1", math.isfinite(fact.confidence) and 0 <= fact.confidence <= 1),
        ("a time zone in its valid_from", fact.valid_from is None or fact.valid_from.tzinfo is not None),
        ("either ended or be a correction", not (fact.ended and fact.correction)),
    )
    return next((f"must have {what}" for what, is_met in requirements if not is_met), None)


def _list_lengths(fact: NewFact) -> Iterator[tuple[str, str, int]]:
    limits = {
        "subject": (fold_text(fact.subject), MAX_NAME_CHARACTERS),
        "predicate": (fact.predicate, MAX_NAME_CHARACTERS),
        "object": (fold_text(fact.object), MAX_OBJECT_CHARACTERS),
        "source_message_id": (fact.source_message_id, MAX_ID_CHARACTERS),
    }
    for name, (text, limit) in limits.items():
        yield f"a {name} of 1 to {limit} characters", text, limit


def _check_times(**times: datetime | None) -> None:
    for name, at in times.items():
        if at is not None and at.tzinfo is None:
            raise MemoryRefused(f"{name} must have a time zone")


def _parse_fact(row: DictRow) -> Fact:
    times = ("valid_from", "valid_to", "recorded_at", "superseded_at")
    moments = {name: to_utc(row[name]) if row[name] else None for name in times}
    return Fact(**{**row, **moments, "id": str(row["id"])})
