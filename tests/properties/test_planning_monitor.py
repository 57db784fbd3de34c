"""What holds of every plan: which are refused, what runs when, and how results are gathered."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.planning_monitor.plan_rules import find_ready_steps, find_step_faults, find_sub_goal_faults
from nodes.planning_monitor.schema import MAX_STEPS, MAX_SUB_GOALS, PlanStep, SubGoal
from nodes.planning_monitor.state import DependencyResult, ExecuteInput, StepResult, merge_results
from nodes.planning_monitor.transcript import build_step_background, build_step_instruction
from nodes.react.state import ReactInput
from nodes.shared.citations import no_grounding

TOOLS = ("look_up", "send")

numbers = st.integers(1, 6)
steps = st.builds(
    PlanStep,
    step_id=numbers,
    sub_goal_number=st.integers(1, 3),
    task=st.just("Do it."),
    expected_outcome=st.just("It is done."),
    tool=st.sampled_from(["look_up", "send", "fly", ""]),
    other_tools=st.lists(st.sampled_from(["look_up", "send", "swim"]), max_size=2),
    depends_on=st.lists(st.integers(1, 8), max_size=3),
)


@st.composite
def valid_steps(draw: st.DrawFn) -> list[PlanStep]:
    """Steps in any order, each of which depends on some of those before it in a hidden one."""
    order = draw(st.permutations(range(1, draw(st.integers(1, MAX_STEPS)) + 1)))
    made = [
        PlanStep(
            step_id=number,
            sub_goal_number=1,
            task=f"Task {number}",
            expected_outcome="Done",
            tool="look_up",
            depends_on=draw(st.lists(st.sampled_from(order[:at]), max_size=3)) if at else [],
        )
        for at, number in enumerate(order)
    ]
    return draw(st.permutations(made))


def result_of(step_id: int, *, success: bool = True, words: str = "") -> StepResult:
    return StepResult(
        step_id=step_id,
        task="",
        success=success,
        result=words,
        iterations=1,
        reason_incomplete=None,
        actions=[],
        **no_grounding(),
    )


def has_circle(needed: Mapping[int, Sequence[int]]) -> bool:
    """By taking away what needs nothing that is left, until nothing more can be taken."""
    left = dict(needed)
    while free := [number for number, others in left.items() if not set(others) & left.keys()]:
        for number in free:
            del left[number]
    return bool(left)


@settings(deadline=None)
@given(st.lists(steps, max_size=6), st.sets(st.integers(7, 8)))
def test_steps_are_refused_exactly_when_they_cannot_be_carried_out(
    made: list[PlanStep], done: set[int]
) -> None:
    ids = [step.step_id for step in made]
    holds = (
        (bool(made) or bool(done))
        and len(set(ids)) == len(ids)
        and all(set(step.depends_on) <= {*ids, *done} for step in made)
        and not has_circle({step.step_id: step.depends_on for step in made})
        and all(step.tools and set(step.tools) <= set(TOOLS) for step in made)
        and all(step.sub_goal_number in {1, 2} for step in made)
    )
    assert (find_step_faults(made, sub_goals={1, 2}, tools=TOOLS, done=done) == []) == holds


@settings(deadline=None)
@given(st.lists(steps, min_size=1, max_size=6))
def test_a_reported_cycle_is_a_cycle(made: list[PlanStep]) -> None:
    needed: dict[int, set[int]] = {}
    for step in made:
        needed.setdefault(step.step_id, set()).update(step.depends_on)
    for fault in find_step_faults(made, sub_goals={1, 2, 3}, tools=TOOLS):
        if "circle" in fault:
            circle = [int(number) for number in re.findall(r"\d+", fault)]
            assert circle[0] == circle[-1] == min(circle)
            assert all(other in needed[number] for number, other in pairwise(circle))


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, st.lists(st.integers(1, 8), max_size=3)), min_size=1, max_size=8))
def test_sub_goals_are_refused_exactly_when_they_cannot_be_ordered(made: list[tuple[int, list[int]]]) -> None:
    sub_goals = [
        SubGoal(number=number, description="A part", depends_on=needed, effort="low")
        for number, needed in made
    ]
    given_numbers = [number for number, _ in made]
    holds = (
        len(made) <= MAX_SUB_GOALS
        and len(set(given_numbers)) == len(given_numbers)
        and all(set(needed) <= set(given_numbers) for _, needed in made)
        and not has_circle(dict(made))
    )
    assert (find_sub_goal_faults(sub_goals) == []) == holds


@settings(deadline=None)
@given(valid_steps(), st.sets(st.integers(1, MAX_STEPS)))
def test_steps_run_once_after_what_they_need_and_never_after_a_failure(
    made: list[PlanStep], failing: set[int]
) -> None:
    assert find_step_faults(made, sub_goals={1}, tools=TOOLS) == []
    needed = {step.step_id: set(step.depends_on) for step in made}
    results: list[StepResult] = []
    ran: list[int] = []
    while wave := find_ready_steps(made, results):
        done = {result["step_id"] for result in results if result["success"]}
        assert all(needed[step.step_id] <= done for step in wave)
        ran += [step.step_id for step in wave]
        results = merge_results(
            results, [result_of(step.step_id, success=step.step_id not in failing) for step in wave]
        )
    assert len(ran) == len(set(ran))
    blocked = set(needed) - set(ran)
    assert all(needed[number] & (failing | blocked) for number in blocked)
    assert blocked == set() or failing & set(needed)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, st.booleans(), st.text(max_size=3))), st.randoms())
def test_results_are_merged_alike_in_any_order(
    given_results: list[tuple[int, bool, str]], random: object
) -> None:
    results = {
        number: result_of(number, success=success, words=words) for number, success, words in given_results
    }
    come = list(results.values())
    getattr(random, "shuffle")(come)  # noqa: B009 - hypothesis gives no public type
    one_by_one: list[StepResult] = []
    for result in come:
        one_by_one = merge_results(one_by_one, [result])
    assert one_by_one == merge_results([], come) == [results[number] for number in sorted(results)]
    assert merge_results(one_by_one, come) == one_by_one


def test_a_step_that_ran_again_has_its_latest_result() -> None:
    [kept] = merge_results([result_of(1, success=False)], [result_of(1, words="now")])
    assert (kept["success"], kept["result"]) == (True, "now")


def test_the_numbers_of_steps_and_sub_goals_are_limited() -> None:
    def step(number: int) -> PlanStep:
        return PlanStep(step_id=number, sub_goal_number=1, task="t", expected_outcome="o", tool="send")

    def faults(count: int) -> list[str]:
        return find_step_faults([step(number + 1) for number in range(count)], sub_goals={1}, tools=TOOLS)

    assert faults(0) == ["there must be at least 1 step"]
    assert faults(MAX_STEPS) == []
    assert faults(MAX_STEPS + 1) == [f"there are {MAX_STEPS + 1} steps; at most {MAX_STEPS} are allowed"]
    assert find_sub_goal_faults([]) == ["there must be at least 1 sub-goal"]


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=3_000)


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=2_000),
    st.lists(anything, max_size=10),
)
def test_the_input_of_a_step_fits_its_agent_and_can_be_stored(task: str, before: list[str]) -> None:
    sent = ExecuteInput(
        step=PlanStep(step_id=11, sub_goal_number=1, task=task, expected_outcome="o").model_dump(),
        instruction="",
        constraints=before[:2],
        dependencies=[
            DependencyResult(step_id=at, task=words, result=words * 3)
            for at, words in enumerate(before, start=1)
        ],
        contact_id="c",
        time_zone="",
    )
    instruction, background = build_step_instruction(sent, "A note."), build_step_background(sent)
    ReactInput(task="t", contact_id="c", instruction=instruction, background=background)
    assert instruction.startswith("A note.")
    assert "\0" not in instruction + background
