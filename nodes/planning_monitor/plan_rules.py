"""What code can tell of a plan: its faults, the steps that can run next, and its outcome."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias

from nodes.planning_monitor.schema import MAX_STEPS, MAX_SUB_GOALS, Plan, PlanStep, SubGoal
from nodes.planning_monitor.state import PlanningReason, StepResult, WaveJudgement

# Numbers, each with the numbers it depends on.
_Dependencies: TypeAlias = Sequence[tuple[int, Sequence[int]]]


def find_sub_goal_faults(sub_goals: Sequence[SubGoal]) -> list[str]:
    """Return what is wrong with the sub-goals, a line per fault."""
    dependencies = [(sub_goal.number, sub_goal.depends_on) for sub_goal in sub_goals]
    return [
        *_check_count("sub-goal", len(sub_goals), 1, MAX_SUB_GOALS),
        *_check_dependencies("sub-goal", dependencies),
    ]


def find_step_faults(
    steps: Sequence[PlanStep],
    *,
    sub_goals: Collection[int],
    tools: Collection[str],
    done: Set[int] = frozenset(),
    failed: Set[int] = frozenset(),
) -> list[str]:
    """Return what is wrong with the steps that are to run, a line per fault.

    Args:
        steps: The steps that are to run.
        sub_goals: Numbers of the plan's sub-goals.
        tools: Names of the available tools.
        done: Numbers of steps that succeeded. Others may depend on them; none may reuse their number.
        failed: Numbers of steps that failed. None may depend on them or reuse their number.
    """
    minimum = 0 if done or failed else 1
    dependencies = [(step.step_id, step.depends_on) for step in steps]
    return [
        *_check_count("step", len(steps), minimum, MAX_STEPS),
        *_check_reuse(steps, done | failed),
        *_check_dependencies("step", dependencies, done=done, failed=failed),
        *(fault for step in steps for fault in _check_references(step, sub_goals, tools)),
    ]


def find_ready_steps(steps: Sequence[PlanStep], results: Sequence[StepResult]) -> list[PlanStep]:
    """Return the steps that have not run and whose dependencies have all succeeded."""
    finished = {result["step_id"] for result in results}
    done = {result["step_id"] for result in results if result["success"]}
    return [step for step in steps if step.step_id not in finished and done.issuperset(step.depends_on)]


def describe_outcome(
    plan: Plan, results: Sequence[StepResult], judgements: Sequence[WaveJudgement]
) -> dict[str, Any]:
    """Return the update that ends a run of whose plan no more step can run."""
    success = {result["step_id"]: result["success"] for result in results}
    planned = [step.step_id for step in plan.steps]
    if unfinished := [step_id for step_id in planned if not success.get(step_id)]:
        failed = [step_id for step_id in unfinished if step_id in success]
        waiting = [step_id for step_id in unfinished if step_id not in success]
        detail = f"{_format_steps(failed)} failed"
        if waiting:
            detail = f"{detail}, {_format_steps(waiting)} could not run"
        return end_incomplete("steps_failed", detail)
    if not planned:
        return end_incomplete("goal_not_reached", "no step succeeded")
    if not judgements[-1]["success"]:
        return end_incomplete("goal_not_reached", judgements[-1]["reasoning"])
    return {"completed": True, "reason": None, "detail": ""}


def end_incomplete(reason: PlanningReason, detail: str) -> dict[str, Any]:
    """Return the update that ends a run without success.

    Args:
        reason: Why it ends.
        detail: The cause in a few words, or in the monitor's own.
    """
    return {"completed": False, "reason": reason, "detail": detail, "draft": None, "faults": []}


def _format_steps(numbers: Iterable[int]) -> str:
    names = [str(number) for number in numbers]
    return f"step {names[0]}" if len(names) == 1 else f"steps {', '.join(names)}"


def _check_count(kind: str, count: int, minimum: int, maximum: int) -> Iterator[str]:
    if count < minimum:
        yield f"there must be at least {minimum} {kind}"
    if count > maximum:
        yield f"there are {count} {kind}s; at most {maximum} are allowed"


def _check_reuse(steps: Sequence[PlanStep], finished: Set[int]) -> Iterator[str]:
    for step in steps:
        if step.step_id in finished:
            yield f"step {step.step_id} has been run already; give the new step another number"


def _check_references(step: PlanStep, sub_goals: Collection[int], tools: Collection[str]) -> Iterator[str]:
    if step.sub_goal_number not in sub_goals:
        yield f"step {step.step_id} serves sub-goal {step.sub_goal_number}, which does not exist"
    if tools and not step.tools:
        yield f"step {step.step_id} names no tool; it must name the one it needs most"
    for name in step.tools:
        if name not in tools:
            yield f"step {step.step_id} names the tool {name!r}; there are: {', '.join(tools) or 'none'}"


def _check_dependencies(
    kind: str, dependencies: _Dependencies, *, done: Set[int] = frozenset(), failed: Set[int] = frozenset()
) -> Iterator[str]:
    counts = Counter(number for number, _ in dependencies)
    for number, count in counts.items():
        if count > 1:
            yield f"the number {number} is given to {count} {kind}s"
    for number, needed in dependencies:
        for other in dict.fromkeys(needed):
            if other in failed and other not in counts:
                yield f"{kind} {number} depends on {kind} {other}, which failed"
            elif other not in counts and other not in done:
                yield f"{kind} {number} depends on {kind} {other}, which does not exist"
    for cycle in _find_cycles(dependencies):
        yield f"{kind}s depend on each other in a circle: {' needs '.join(map(str, cycle))}"


def _find_cycles(dependencies: _Dependencies) -> Iterator[list[int]]:
    """Yield the cycles of the dependencies; no two of them share a number."""
    remaining: dict[int, set[int]] = {}
    for number, needed in dependencies:
        remaining.setdefault(number, set()).update(needed)
    while cycle := _find_cycle(remaining):
        yield cycle
        remaining = {number: needed for number, needed in remaining.items() if number not in cycle}


def _find_cycle(dependencies: Mapping[int, Set[int]]) -> list[int]:
    try:
        TopologicalSorter(dependencies).prepare()
    except CycleError as error:
        # The sorter lists each number before the one that needs it, and the first again at the end.
        cycle: list[int] = error.args[1][:0:-1]
        start = cycle.index(min(cycle))
        return [*cycle[start:], *cycle[: start + 1]]
    return []
