"""What holds for every division of a task: what is refused, in which order the rest is carried out."""

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from hypothesis import given
from hypothesis import strategies as st

from core.texts import cut, fence, join_lines
from nodes.hierarchical.plan import (
    MAX_SUBTASKS,
    PlannedSubtask,
    find_faults,
    find_ready,
    number_subtasks,
    skip_blocked,
)
from nodes.hierarchical.state import Status, Subtask, build_id, merge_subtasks

AGENTS = ["scout", "writer"]
numbers = st.integers(-1, 10)
planned = st.lists(
    st.builds(
        PlannedSubtask,
        number=numbers,
        agent=st.sampled_from([*AGENTS, "nobody"]) | st.sampled_from(AGENTS),
        task=st.just("look up") | st.text(max_size=5),
        depends_on=st.lists(numbers, max_size=3),
    ),
    max_size=MAX_SUBTASKS + 2,
)
statuses: st.SearchStrategy[Status] = st.sampled_from(("done", "failed", "skipped"))
earlier = st.lists(statuses, max_size=4).map(
    lambda given: [subtask(at, status=status) for at, status in enumerate(given, start=1)]
)


def subtask(number: int, *, after: Sequence[int] = (), status: Status = "pending") -> Subtask:
    return Subtask(
        id=build_id(number),
        agent="scout",
        task="look up",
        depends_on=[build_id(each) for each in after],
        status=status,
        result="",
        reason=None,
    )


@st.composite
def graphs(draw: st.DrawFn) -> list[Subtask]:
    """Subtasks without cycles, in any order, some of them dependent on several."""
    names = draw(st.permutations(range(1, draw(st.integers(1, MAX_SUBTASKS)) + 1)))
    found = [
        subtask(
            name, after=draw(st.lists(st.sampled_from(names[:at]), max_size=3, unique=True)) if at else ()
        )
        for at, name in enumerate(names)
    ]
    return merge_subtasks([], found)


@given(planned, earlier)
def test_subtasks_without_faults_are_known_few_and_acyclic(
    given: list[PlannedSubtask], before: list[Subtask]
) -> None:
    if find_faults(given, AGENTS, before):
        return
    new = number_subtasks(given, before)
    everything = merge_subtasks(before, new)
    assert 1 <= len(new) <= MAX_SUBTASKS
    assert [each["id"] for each in everything] == [build_id(at + 1) for at in range(len(everything))]
    known = {each["id"]: each for each in everything}
    for each in new:
        assert each["agent"] in AGENTS
        assert each["task"]
        assert all(known[on]["status"] in {"pending", "done"} for on in each["depends_on"])
    TopologicalSorter({each["id"]: each["depends_on"] for each in everything}).prepare()
    assert find_ready(everything)


@given(planned)
def test_a_cycle_is_always_a_fault(given: list[PlannedSubtask]) -> None:
    edges: dict[int, list[int]] = {}
    for each in given:
        edges[each.number] = each.depends_on
    try:
        TopologicalSorter(edges).prepare()
    except CycleError:
        assert find_faults(given, AGENTS, [])


@given(graphs(), st.data())
def test_every_subtask_comes_to_an_end_and_none_begins_before_what_it_depends_on(
    subtasks: list[Subtask], data: st.DataObject
) -> None:
    waves = 0
    while wave := find_ready(subtasks):
        waves += 1
        ended = {each["id"]: each["status"] for each in subtasks if each["status"] != "pending"}
        assert all(ended.get(on) == "done" for each in wave for on in each["depends_on"])
        results: list[Subtask] = [
            {**each, "status": data.draw(st.sampled_from(("done", "failed")))} for each in wave
        ]
        subtasks = merge_subtasks(subtasks, data.draw(st.permutations(results)))
        if lost := skip_blocked(subtasks):
            subtasks = merge_subtasks(subtasks, lost)
    known = {each["id"]: each["status"] for each in subtasks}
    assert waves <= MAX_SUBTASKS
    assert "pending" not in known.values()
    for each in subtasks:
        is_lost = any(known[on] != "done" for on in each["depends_on"])
        assert (each["status"] == "skipped") == is_lost
        assert (each["reason"] is not None) == is_lost


@given(graphs(), st.data())
def test_results_come_in_in_any_order_and_more_than_once(
    subtasks: list[Subtask], data: st.DataObject
) -> None:
    done: list[Subtask] = [{**each, "status": "done"} for each in subtasks]
    state = subtasks
    for each in data.draw(st.permutations([*done, *done])):
        state = merge_subtasks(state, [each])
    assert state == done
    assert merge_subtasks(state, []) == state


@given(st.text(), st.sampled_from(("results", "task")))
def test_a_text_cannot_leave_its_fence(text: str, name: str) -> None:
    inside = f"{text}</{name}>{text}<{name}>< / {name.upper()}>"
    shown = fence(name, inside).lower()
    assert shown.count(f"</{name}>") == 1
    assert shown.count(f"<{name}>") == 1
    assert shown.endswith(f"</{name}>")


@given(st.text(), st.integers(0, 50))
def test_a_cut_text_says_how_much_is_missing(text: str, limit: int) -> None:
    shown = cut(text, limit)
    assert shown == text if len(text) <= limit else shown.startswith(text[:limit])
    assert str(max(len(text) - limit, 0)) in shown or len(text) <= limit
    assert "\n" not in join_lines(text)
