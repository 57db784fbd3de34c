"""Facts: what is believed of a contact, in valid time and in transaction time.

- A repetition adds a statement, and so confidence (noisy-or of the statements' own); no row changes.
- A change over time closes the belief and writes it again, with the moment the change began as its end.
- A correction closes the belief: it was never true. Its row stays, with the message that corrected it.

Only what has the same subject, predicate and scope key is ever closed, and of a predicate that may have
several values only the very value that is said to have ended or been wrong. Likeness of texts counts nothing.
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

SAID_AT_SQL: Final = "SELECT id, at FROM memory.messages WHERE scope = %s AND id = ANY(%s)"
INSERT_SQL: Final = """
INSERT INTO memory.facts (scope, line, subject, subject_key, predicate, object, scope_key, confidence,
                          source_message_id, valid_from, valid_to, recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
"""
# A statement that is not counted was made later than one asks for. Doubt is multiplied: 1 - (1-a)(1-b).
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
_OF_SCOPE: Final = """
WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
  AND (%(subject)s = '' OR subject_key = %(subject)s) AND (%(predicate)s = '' OR predicate = %(predicate)s)
"""
BY_ID_SQL: Final = _COLUMNS.format(counted="'infinity'") + "WHERE scope = %s AND facts.id = ANY(%s)"
LIST_SQL: Final = (
    _COLUMNS.format(counted="%(believed_at)s::timestamptz")
    + _OF_SCOPE
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
    + _OF_SCOPE
    + "ORDER BY facts.recorded_at DESC, facts.id DESC LIMIT %(limit)s"
)
# Who writes has taken its moment already: it is waited for, so that what it believed by then is seen.
AWAIT_WRITERS_SQL: Final = "SELECT FROM memory.scopes WHERE tenant = %s AND contact_id = %s FOR SHARE"


async def upsert_facts(
    pool: Pool, scope: Scope, facts: Sequence[NewFact], *, vocabulary: Vocabulary
) -> list[FactChange]:
    """Remember facts, all or none; see :class:`core.memory.Memory`.

    Args:
        pool: The service's pool.
        scope: Whose.
        facts: At most :data:`MAX_FACTS`.
        vocabulary: Which predicates have one value at a time.

    Raises:
        MemoryRefused: Some do not fit; none is kept.
    """
    check_scope(scope)
    if len(facts) > MAX_FACTS:
        raise MemoryRefused(f"{len(facts)} facts at once; send at most {MAX_FACTS}")
    given = [_checked(fact) for fact in facts]
    if not given:
        return []
    async with pool.connection() as connection, connection.transaction():
        number, clock = await lock_scope(connection, scope)
        said = await _said_at(connection, number, given)
        learner = _Learner(connection, number, clock, vocabulary)
        found = [await learner.learn(fact, said.get(fact.source_message_id, clock.moment)) for fact in given]
        ids = sorted({each for plan, row in found for each in (row, plan.closed) if each is not None})
        rows = await (await connection.execute(BY_ID_SQL.encode(), (number, ids))).fetchall()
    kept = {row["id"]: _fact(row) for row in rows}
    return [
        FactChange(fact=kept[row], outcome=plan.outcome, closed=kept[plan.closed] if plan.closed else None)
        for plan, row in found
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
    """Facts that held at one time, as they were believed at another; see :class:`core.memory.Memory`.

    They are as they were believed then: that a belief ended later does not show.

    Raises:
        MemoryRefused: A time has no time zone.
    """
    _check_times(valid_at=valid_at, believed_at=believed_at)
    parameters = _query(scope, subject, predicate) | {
        "valid_at": valid_at,
        "believed_at": believed_at or "infinity",
    }
    async with pool.connection() as connection, connection.transaction():
        if believed_at:
            await connection.execute(AWAIT_WRITERS_SQL, (scope.tenant, scope.contact_id))
        rows = await (await connection.execute(LIST_SQL.encode(), parameters)).fetchall()
    return [replace(_fact(row), superseded_at=None, superseded_by=None) for row in rows]


async def fact_history(pool: Pool, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:
    """Everything ever believed, oldest belief first: of very many the last :data:`MAX_LISTED`."""
    parameters = _query(scope, subject, predicate)
    async with pool.connection() as connection:
        rows = await (await connection.execute(HISTORY_SQL.encode(), parameters)).fetchall()
    return [_fact(row) for row in reversed(rows)]


def _query(scope: Scope, subject: str, predicate: str) -> dict[str, object]:
    check_scope(scope)
    return {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "subject": fold_text(subject),
        "predicate": normalise_predicate(predicate),
        "limit": MAX_LISTED,
    }


class _Learner:
    """Learns facts within one transaction that holds the scope."""

    def __init__(self, connection: Connection, scope: int, clock: Clock, vocabulary: Vocabulary) -> None:
        self._connection = connection
        self._scope = scope
        self._clock = clock
        self._vocabulary = vocabulary

    async def learn(self, fact: NewFact, said_at: datetime) -> tuple[Plan, int]:
        """What is done, and the row that says the fact now."""
        single = fact.predicate in self._vocabulary.predicates
        statement = Statement(
            scope=self._scope,
            line=await self._line(fact, "" if single else fact.object),
            message=fact.source_message_id,
            value=fold_text(fact.object),
            ended=fact.ended,
            confidence=fact.confidence,
        )
        known = await find_repeated_row(self._connection, "facts", statement)
        if known is not None:
            return Plan(outcome="repeated", known=known), known
        moment = self._clock.tick()
        periods = await load_believed(self._connection, "facts", statement.line)
        target = None if single else await self._wrong(fact, said_at)
        plan = _plan(fact, said_at, periods) if target is None else _instead(fact, target, periods)
        row = await self._write(fact, statement.line, plan, moment)
        await record_statement(self._connection, "facts", statement, row, moment)
        return plan, row

    async def _wrong(self, fact: NewFact, said_at: datetime) -> Period | None:
        """What a correction names as wrong, of a property that has a line for each value."""
        if not (fact.correction and fact.instead_of) or fold_text(fact.instead_of) == fold_text(fact.object):
            return None
        line = await self._line(fact, fact.instead_of)
        return find_corrected(await load_believed(self._connection, "facts", line), said_at)

    async def _write(self, fact: NewFact, line: int, plan: Plan, moment: datetime) -> int:
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

    async def _line(self, fact: NewFact, value: str) -> int:
        names = (fact.subject, fact.predicate, fact.scope_key, value)
        return await get_line(self._connection, self._scope, build_line_key("fact", *map(fold_text, names)))


def _plan(fact: NewFact, said_at: datetime, periods: Sequence[Period]) -> Plan:
    value = fold_text(fact.object)
    if fact.ended:
        return plan_end(periods, value, fact.valid_from or said_at)
    if fact.correction:
        wrong_value = fold_text(fact.instead_of)
        return plan_correction(periods, value, said_at, start=fact.valid_from, instead_of=wrong_value)
    return plan_statement(periods, value, fact.valid_from or said_at)


def _instead(fact: NewFact, target: Period, periods: Sequence[Period]) -> Plan:
    plan = plan_statement(periods, fold_text(fact.object), fact.valid_from or target.start, until=target.end)
    closed = (*plan.superseded, target.row)
    return replace(plan, outcome="corrected", superseded=closed, closed=target.row)


async def _said_at(connection: Connection, scope: int, facts: Sequence[NewFact]) -> Mapping[str, datetime]:
    messages = sorted({fact.source_message_id for fact in facts})
    rows = await (await connection.execute(SAID_AT_SQL, (scope, messages))).fetchall()
    return {row["id"]: row["at"] for row in rows}


def _checked(fact: NewFact) -> NewFact:
    """The fact as it is kept.

    Raises:
        MemoryRefused: It does not fit.
    """
    named = replace(
        fact,
        subject=" ".join(fact.subject.split()),
        predicate=normalise_predicate(fact.predicate),
        object=" ".join(fact.object.split()),
        scope_key=fold_text(fact.scope_key),
    )
    fault = _fault(named)
    if fault:
        raise MemoryRefused(f"fact {fact.predicate[:MAX_NAME_CHARACTERS]!r} {fault}")
    return named


def _fault(fact: NewFact) -> str | None:
    texts = (fact.subject, fact.predicate, fact.object, fact.scope_key, fact.instead_of)
    doubtful = (
        *((name, 0 < len(text) <= most) for name, text, most in _lengths(fact)),
        (f"a scope_key of at most {MAX_NAME_CHARACTERS}", len(fact.scope_key) <= MAX_NAME_CHARACTERS),
        ("no characters that cannot be kept", all(map(is_storable, (*texts, fact.source_message_id)))),
        ("a confidence from 0 to 1", math.isfinite(fact.confidence) and 0 <= fact.confidence <= 1),
        ("a time zone in its valid_from", fact.valid_from is None or fact.valid_from.tzinfo is not None),
        ("either ended or be a correction", not (fact.ended and fact.correction)),
    )
    return next((f"must have {what}" for what, fits in doubtful if not fits), None)


def _lengths(fact: NewFact) -> Iterator[tuple[str, str, int]]:
    limits = {
        "subject": (fold_text(fact.subject), MAX_NAME_CHARACTERS),
        "predicate": (fact.predicate, MAX_NAME_CHARACTERS),
        "object": (fold_text(fact.object), MAX_OBJECT_CHARACTERS),
        "source_message_id": (fact.source_message_id, MAX_ID_CHARACTERS),
    }
    for name, (text, most) in limits.items():
        yield f"a {name} of 1 to {most} characters", text, most


def _check_times(**times: datetime | None) -> None:
    for name, at in times.items():
        if at is not None and at.tzinfo is None:
            raise MemoryRefused(f"{name} must say in which time zone it is")


def _fact(row: DictRow) -> Fact:
    times = ("valid_from", "valid_to", "recorded_at", "superseded_at")
    moments = {name: to_utc(row[name]) if row[name] else None for name in times}
    return Fact(**{**row, **moments, "id": str(row["id"])})
