"""What a statement does to what is believed of one line: pure, and without a database.

The believed values of a line stand one after the other in valid time (Snodgrass, "Developing Time-Oriented
Database Applications in SQL", 2000, chapter 10: sequenced modifications of a bitemporal table). A statement
says that a value holds from a moment on; it holds until the next value that is known begins. So the order in
which messages are read does not matter: an old one that comes late fills the past, and retires nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["added", "repeated", "changed", "corrected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A value that is believed, from ``start`` until before ``end``; an empty one ended unseen.

    ``row`` is where it is kept, ``value`` what it is compared by.
    """

    row: int
    value: str
    start: datetime
    end: datetime | None

    @property
    def is_empty(self) -> bool:
        """Whether it never held, as far as is known."""
        return self.start == self.end

    def holds(self, at: datetime) -> bool:
        """Whether it does at a moment."""
        return self.start <= at and (self.end is None or at < self.end)


@dataclass(frozen=True, slots=True)
class Copy:
    """A row once more, with another valid time."""

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
    """What is to be written.

    Attributes:
        outcome: What the statement is, beside what was believed.
        superseded: Rows that are believed no longer.
        copies: Rows to write again with another valid time.
        new: The valid time of the row to add; None: nothing new is said.
        known: The row that says it already; its copy does, where there is one.
        closed: The row whose place was taken.
    """

    outcome: Outcome
    superseded: tuple[int, ...] = ()
    copies: tuple[Copy, ...] = ()
    new: Span | None = None
    known: int | None = None
    closed: int | None = None


def state(believed: Sequence[Period], value: str, start: datetime, *, until: datetime | None = None) -> Plan:
    """The value holds from ``start`` on: a repetition, a change over time, or something new.

    Args:
        believed: Of the line; no two of them overlap.
        value: What is said.
        start: Since when.
        until: When it ended, where that is known.
    """
    current = _holding(believed, start)
    if current and current.value == value:
        return Plan(outcome="repeated", known=current.row)
    outcome: Outcome = "added" if not current else "corrected" if current.start == start else "changed"
    superseded = (current.row,) if current else ()
    copies = tuple(_around(current, start, until)) if current else ()
    closed = current.row if current else None
    following = _following(believed, value, start)
    if following is None:
        return Plan(
            outcome=outcome, superseded=superseded, copies=copies, new=Span(start, until), closed=closed
        )
    meets = until is None or until >= following.start
    if following.value == value and not following.is_empty and meets:
        # Known already, only since when was not.
        return Plan(
            outcome=outcome if current else "repeated",
            superseded=(*superseded, following.row),
            copies=(*copies, Copy(following.row, start, following.end)),
            known=following.row,
            closed=closed if current else following.row,
        )
    end = following.start if meets else until
    return Plan(outcome=outcome, superseded=superseded, copies=copies, new=Span(start, end), closed=closed)


def end(believed: Sequence[Period], value: str, at: datetime) -> Plan:
    """The value holds no longer from ``at`` on. Another value that is believed is left alone."""
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


def correct(
    believed: Sequence[Period],
    value: str,
    said_at: datetime,
    *,
    start: datetime | None = None,
    instead_of: str = "",
) -> Plan:
    """The value holds in place of one that was never true.

    Args:
        believed: Of the line; no two of them overlap.
        value: What is said.
        said_at: When it was said: what was believed to hold then is corrected.
        start: Since when it holds; None: since when the wrong one was believed to. Until then lasts what
            held before.
        instead_of: The wrong value; nothing else is corrected. ``""``: whatever was believed.
    """
    target = wrong(believed, said_at, instead_of)
    if target is None:
        return state(believed, value, start or said_at)
    if target.value == value and (start is None or start == target.start):
        return Plan(outcome="repeated", known=target.row)
    begins = start or target.start
    until = target.end if target.end and begins < target.end else None
    rest = [period for period in believed if period.row != target.row]
    if begins > target.start:
        rest = [_stretched(period, target, value) for period in rest]
    plan = state(rest, value, begins, until=until)
    return replace(plan, outcome="corrected", superseded=(*plan.superseded, target.row), closed=target.row)


def _stretched(period: Period, target: Period, value: str) -> Period:
    """Another value that ended where the wrong one began: it may have lasted, if that began later."""
    meets = period.end == target.start and not period.is_empty and period.value != value
    return replace(period, end=target.end) if meets else period


def wrong(believed: Sequence[Period], said_at: datetime, value: str = "") -> Period | None:
    """What a correction is about: the value believed to hold when it was made, or else the last before."""
    begun = [
        period
        for period in believed
        if not period.is_empty and period.start <= said_at and value in {"", period.value}
    ]
    return begun[-1] if begun else None


def _holding(believed: Sequence[Period], at: datetime) -> Period | None:
    return next((period for period in believed if period.holds(at)), None)


def _around(current: Period, start: datetime, until: datetime | None) -> Iterator[Copy]:
    """What is left of a value that another takes the place of: before it and, where that ended, after it."""
    if current.start < start:
        yield Copy(current.row, current.start, start)
    if until and (current.end is None or until < current.end):
        yield Copy(current.row, until, current.end)


def _following(believed: Sequence[Period], value: str, start: datetime) -> Period | None:
    """The next value, or the next moment by which this one had ended."""
    later = (
        period
        for period in believed
        if period.start > start and (not period.is_empty or period.value == value)
    )
    return min(later, key=lambda period: (period.start, not period.is_empty), default=None)
