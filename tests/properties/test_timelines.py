"""For any statements in any order, no two values of a line are believed for one moment."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from memory.timelines import Period, Plan, plan_correction, plan_end, plan_statement

START = datetime(2026, 1, 1, tzinfo=UTC)
VALUES = st.sampled_from(["a", "b", "c"])
DAYS = st.integers(0, 12)


@dataclass(frozen=True)
class Said:
    kind: str
    value: str
    day: int
    since: int | None
    instead_of: str


SAID = st.lists(
    st.builds(
        Said,
        st.sampled_from(["state", "state", "while", "end", "correct"]),
        VALUES,
        DAYS,
        st.none() | DAYS,
        st.sampled_from(["", "a", "b"]),
    ),
    max_size=12,
)


def at(day: int | None) -> datetime | None:
    return None if day is None else START + timedelta(days=day)


def planned(believed: list[Period], said: Said) -> Plan:
    moment = START + timedelta(days=said.day)
    since = at(said.since)
    if said.kind == "end":
        return plan_end(believed, said.value, moment)
    if said.kind == "correct":
        return plan_correction(believed, said.value, moment, start=since, instead_of=said.instead_of)
    begins = since or moment
    until = begins + timedelta(days=3) if said.kind == "while" else None
    return plan_statement(believed, said.value, begins, until=until)


def carried_out(believed: list[Period], plan: Plan, value: str, free: int) -> list[Period]:
    """Apply a plan and return what is believed then; new rows are numbered from ``free``."""
    by_row = {period.row: period for period in believed}
    left = [period for period in believed if period.row not in plan.superseded]
    for copy in plan.copies:
        old = by_row[copy.row]
        left.append(Period(row=free, value=old.value, start=copy.start, end=copy.end))
        free += 1
    if plan.new:
        left.append(Period(row=free, value=value, start=plan.new.start, end=plan.new.end))
    return sorted(left, key=lambda period: (period.start, period.row))


@given(SAID)
def test_two_values_are_never_believed_for_one_moment(statements: list[Said]) -> None:
    believed: list[Period] = []
    for number, said in enumerate(statements):
        plan = planned(believed, said)
        believed = carried_out(believed, plan, said.value, 10 * (number + 1))
        held = [period for period in believed if not period.is_empty]
        for earlier, later in pairwise(held):
            assert earlier.end is not None
            assert earlier.end <= later.start
        assert all(period.end is None or period.start <= period.end for period in believed)


@given(SAID)
def test_the_last_statement_is_believed_from_its_start(statements: list[Said]) -> None:
    believed: list[Period] = []
    for number, said in enumerate(statements):
        believed = carried_out(believed, planned(believed, said), said.value, 10 * (number + 1))
        since = at(said.since) or START + timedelta(days=said.day)
        holding = [period.value for period in believed if period.holds(since) and not period.is_empty]
        if said.kind in {"state", "while"}:
            assert holding == [said.value]
        elif said.kind == "end":
            assert said.value not in [
                period.value for period in believed if period.holds(START + timedelta(days=said.day))
            ]


@given(SAID, VALUES, DAYS)
def test_repeating_a_statement_changes_nothing(statements: list[Said], value: str, day: int) -> None:
    believed: list[Period] = []
    for number, said in enumerate(statements):
        believed = carried_out(believed, planned(believed, said), said.value, 10 * (number + 1))
    once = carried_out(believed, plan_statement(believed, value, START + timedelta(days=day)), value, 1_000)
    again = plan_statement(once, value, START + timedelta(days=day))
    assert again.outcome == "repeated"
    assert (again.superseded, again.copies, again.new) == ((), (), None)


@given(st.permutations([("a", 1), ("b", 4), ("c", 9)]))
def test_the_order_in_which_statements_arrive_does_not_matter(order: list[tuple[str, int]]) -> None:
    believed: list[Period] = []
    for number, (value, day) in enumerate(order):
        believed = carried_out(
            believed, plan_statement(believed, value, START + timedelta(days=day)), value, 10 * (number + 1)
        )
    assert [(period.value, period.start, period.end) for period in believed] == [
        ("a", at(1), at(4)),
        ("b", at(4), at(9)),
        ("c", at(9), None),
    ]


def test_a_value_with_an_end_leaves_the_values_before_and_after() -> None:
    believed = carried_out([], plan_statement([], "a", START), "a", 1)
    believed = carried_out(
        believed, plan_statement(believed, "b", START + timedelta(3), until=at(5)), "b", 10
    )
    assert [(period.value, period.start, period.end) for period in believed] == [
        ("a", at(0), at(3)),
        ("b", at(3), at(5)),
        ("a", at(5), None),
    ]
