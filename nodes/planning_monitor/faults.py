"""Whether a plan holds: what code can tell without knowing what the plan is about."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from graphlib import CycleError, TopologicalSorter

from nodes.planning_monitor.schema import MAX_STEPS, MAX_SUB_GOALS, PlanStep, SubGoal

_Dependencies = Sequence[tuple[int, Sequence[int]]]


def sub_goal_faults(sub_goals: Sequence[SubGoal]) -> list[str]:
    """What is wrong with the sub-goals, a line each."""
    asked = [(sub_goal.number, sub_goal.depends_on) for sub_goal in sub_goals]
    return [*_count("sub-goal", len(sub_goals), 1, MAX_SUB_GOALS), *_dependency_faults("sub-goal", asked)]


def step_faults(
    steps: Sequence[PlanStep],
    *,
    sub_goals: Collection[int],
    tools: Collection[str],
    done: Set[int] = frozenset(),
    failed: Set[int] = frozenset(),
) -> list[str]:
    """What is wrong with the steps that are to run, a line each.

    Args:
        steps: Those to run.
        sub_goals: Numbers of the sub-goals there are.
        tools: Names of the tools there are.
        done: Numbers of steps that succeeded: they may be depended on, and not be used again.
        failed: Numbers of steps that failed: neither.
    """
    least = 0 if done or failed else 1
    asked = [(step.step_id, step.depends_on) for step in steps]
    return [
        *_count("step", len(steps), least, MAX_STEPS),
        *_reused(steps, done | failed),
        *_dependency_faults("step", asked, done=done, failed=failed),
        *(fault for step in steps for fault in _choices(step, sub_goals, tools)),
    ]


def _count(kind: str, number: int, least: int, most: int) -> Iterator[str]:
    if number < least:
        yield f"there must be at least {least} {kind}"
    if number > most:
        yield f"there are {number} {kind}s; at most {most} are allowed"


def _reused(steps: Sequence[PlanStep], run: Set[int]) -> Iterator[str]:
    for step in steps:
        if step.step_id in run:
            yield f"step {step.step_id} has been run already; give the new step another number"


def _choices(step: PlanStep, sub_goals: Collection[int], tools: Collection[str]) -> Iterator[str]:
    if step.sub_goal_number not in sub_goals:
        yield f"step {step.step_id} serves sub-goal {step.sub_goal_number}, which does not exist"
    if tools and not step.tools:
        yield f"step {step.step_id} names no tool; it must name the one it needs most"
    for name in step.tools:
        if name not in tools:
            yield f"step {step.step_id} names the tool {name!r}; there are: {', '.join(tools) or 'none'}"


def _dependency_faults(
    kind: str, asked: _Dependencies, *, done: Set[int] = frozenset(), failed: Set[int] = frozenset()
) -> Iterator[str]:
    numbers = Counter(number for number, _ in asked)
    for number, times in numbers.items():
        if times > 1:
            yield f"the number {number} is given to {times} {kind}s"
    for number, needed in asked:
        for other in dict.fromkeys(needed):
            if other in failed and other not in numbers:
                yield f"{kind} {number} depends on {kind} {other}, which failed"
            elif other not in numbers and other not in done:
                yield f"{kind} {number} depends on {kind} {other}, which does not exist"
    for circle in _circles(asked):
        yield f"{kind}s depend on each other in a circle: {' needs '.join(map(str, circle))}"


def _circles(asked: _Dependencies) -> Iterator[list[int]]:
    """Circles of dependencies; no two of them share a number."""
    left: dict[int, set[int]] = {}
    for number, needed in asked:
        left.setdefault(number, set()).update(needed)
    while circle := _circle(left):
        yield circle
        left = {number: needed for number, needed in left.items() if number not in circle}


def _circle(needed: Mapping[int, Set[int]]) -> list[int]:
    try:
        TopologicalSorter(needed).prepare()
    except CycleError as error:
        # Each number is needed by the one behind it, and the last is the first again.
        needs: list[int] = error.args[1][:0:-1]
        start = needs.index(min(needs))
        return [*needs[start:], *needs[: start + 1]]
    return []
