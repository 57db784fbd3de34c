"""Timelines: how a statement changes what is believed of one line, as pure functions.

The believed values of a line follow one another in valid time (Snodgrass, "Developing Time-Oriented Database
Applications in SQL", 2000, chapter 10: sequenced modifications of a bitemporal table). A statement says that
a value holds from a moment on; it holds until the next known value begins. The order in which messages are
read therefore does not matter: an old message that is read late fills the past, and replaces nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["added", "repeated", "changed", "corrected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A value that is believed to hold from ``start`` until before ``end``.

    An empty period means that the value had ended by then, although its beginning is unknown. ``row`` is the
    id of its row, ``value`` the form in which values are compared.
    """

    row: int
    value: str
    start: datetime
    end: datetime | None

    @property
    def is_empty(self) -> bool:
        """Whether no time is known at which the value held."""
        return self.start == self.end

    def holds(self, at: datetime) -> bool:
        """Return whether the value holds at a moment."""
        return self.start <= at and (self.end is None or at < self.end)


@dataclass(frozen=True, slots=True)
class Copy:
    """A row to be written again with another valid time."""

    row: int
    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True)
class Span:
    """The valid time of a new row."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a statement changes.

    Attributes:
        outcome: How the statement relates to what was believed.
        superseded: Rows that are no longer believed.
        copies: Rows to be written again with another valid time.
        new: The valid time of the row to add; None if the statement is known already.
        known: The row that states it already, or whose copy does.
        closed: The row that the statement replaces.
    """

    outcome: Outcome
    superseded: tuple[int, ...] = ()
    copies: tuple[Copy, ...] = ()
    new: Span | None = None
    known: int | None = None
    closed: int | None = None


def plan_statement(
    believed: Sequence[Period], value: str, start: datetime, *, until: datetime | None = None
) -> Plan:
    """Plan a statement that a value holds from ``start`` on.

    Args:
        believed: The periods of the line; no two overlap.
        value: The stated value.
        start: When it began to hold.
        until: When it ended, if known.
    """
    current = _find_holding(believed, start)
    if current and current.value == value:
        return Plan(outcome="repeated", known=current.row)
    outcome: Outcome = "added" if not current else "corrected" if current.start == start else "changed"
    superseded = (current.row,) if current else ()
    copies = tuple(_remaining_parts(current, start, until)) if current else ()
    closed = current.row if current else None
    following = _find_following(believed, value, start)
    if following is None:
        return Plan(
            outcome=outcome, superseded=superseded, copies=copies, new=Span(start, until), closed=closed
        )
    reaches_following = until is None or until >= following.start
    if following.value == value and not following.is_empty and reaches_following:
        # The value is known already, but from a later start.
        return Plan(
            outcome=outcome if current else "repeated",
            superseded=(*superseded, following.row),
            copies=(*copies, Copy(following.row, start, following.end)),
            known=following.row,
            closed=closed if current else following.row,
        )
    end = following.start if reaches_following else until
    return Plan(outcome=outcome, superseded=superseded, copies=copies, new=Span(start, end), closed=closed)


def plan_end(believed: Sequence[Period], value: str, at: datetime) -> Plan:
    """Plan a statement that a value no longer holds from ``at`` on. Other values are left alone."""
    current = next((period for period in believed if period.value == value and period.holds(at)), None)
    if current:
        return Plan(
            outcome="changed",
            superseded=(current.row,),
            copies=(Copy(current.row, current.start, at),),
            known=current.row,
            closed=current.row,
        )
    ended = [period for period in believed if period.value == value and period.end and period.end <= at]
    if ended:
        return Plan(outcome="repeated", known=ended[-1].row)
    return Plan(outcome="added", new=Span(at, at))


def plan_correction(
    believed: Sequence[Period],
    value: str,
    stated_at: datetime,
    *,
    start: datetime | None = None,
    instead_of: str = "",
) -> Plan:
    """Plan a statement that a value holds in place of one that was never true.

    Args:
        believed: The periods of the line; no two overlap.
        value: The stated value.
        stated_at: When it was stated. What was believed to hold at that time is corrected.
        start: When the value began to hold; None for the beginning of the wrong one. The value before the
            wrong one lasts until then.
        instead_of: The wrong value, and only that is corrected; ``""`` for any.
    """
    target = find_corrected(believed, stated_at, instead_of)
    if target is None:
        return plan_statement(believed, value, start or stated_at)
    if target.value == value and (start is None or start == target.start):
        return Plan(outcome="repeated", known=target.row)
    begins = start or target.start
    until = target.end if target.end and begins < target.end else None
    rest = [period for period in believed if period.row != target.row]
    if begins > target.start:
        rest = [_extend_over(period, target, value) for period in rest]
    plan = plan_statement(rest, value, begins, until=until)
    return replace(plan, outcome="corrected", superseded=(*plan.superseded, target.row), closed=target.row)


def _extend_over(period: Period, target: Period, value: str) -> Period:
    """Extend another value that ended where the wrong one began, because it may have lasted longer."""
    meets = period.end == target.start and not period.is_empty and period.value != value
    return replace(period, end=target.end) if meets else period


def find_corrected(believed: Sequence[Period], stated_at: datetime, value: str = "") -> Period | None:
    """Return the period that a correction is about: the one at the time of the statement, else the last."""
    earlier = [
        period
        for period in believed
        if not period.is_empty and period.start <= stated_at and value in {"", period.value}
    ]
    return earlier[-1] if earlier else None


def _find_holding(believed: Sequence[Period], at: datetime) -> Period | None:
    return next((period for period in believed if period.holds(at)), None)


def _remaining_parts(current: Period, start: datetime, until: datetime | None) -> Iterator[Copy]:
    """Yield what remains of a replaced value: before the new one and, if that has ended, after it."""
    if current.start < start:
        yield Copy(current.row, current.start, start)
    if until and (current.end is None or until < current.end):
        yield Copy(current.row, until, current.end)


def _find_following(believed: Sequence[Period], value: str, start: datetime) -> Period | None:
    """Return the next value, or the next moment by which this value had ended."""
    later = (
        period
        for period in believed
        if period.start > start and (not period.is_empty or period.value == value)
    )
    return min(later, key=lambda period: (period.start, not period.is_empty), default=None)
