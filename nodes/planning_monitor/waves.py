"""Waves: the steps that can run now, and where a run goes when none is left."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langgraph.types import Command, Send

from nodes.planning_monitor.endings import ended
from nodes.planning_monitor.schema import Plan, PlanStep
from nodes.planning_monitor.state import Before, ExecuteInput, Judged, PlanningState, StepResult


def ready(steps: Sequence[PlanStep], results: Sequence[StepResult]) -> list[PlanStep]:
    """The steps that have not run and whose dependencies have all succeeded."""
    run = {result["step_id"] for result in results}
    done = {result["step_id"] for result in results if result["success"]}
    return [step for step in steps if step.step_id not in run and done.issuperset(step.depends_on)]


def onward(
    state: PlanningState, plan: Plan, *, judgements: Sequence[Judged], update: Mapping[str, Any]
) -> Command[Any]:
    """Send out the next wave, a task of ``execute`` for each step; ``finish`` where no step can run.

    Args:
        state: The run's state.
        plan: The plan in force.
        judgements: All there are by now.
        update: What else has changed.
    """
    wave = ready(plan.steps, state["results"])
    if not wave:
        outcome = _outcome(plan, state["results"], judgements)
        return Command(goto="finish", update={**update, **outcome})
    sent = [Send("execute", _execute_input(step, state)) for step in wave]
    return Command(goto=sent, update={**update, "wave": [step.step_id for step in wave]})


def _execute_input(step: PlanStep, state: PlanningState) -> ExecuteInput:
    return ExecuteInput(
        step=step.model_dump(),
        guidance=state["guidance"],
        constraints=state["kept_constraints"],
        before=[
            Before(step_id=result["step_id"], task=result["task"], result=result["result"])
            for result in state["results"]
            if result["step_id"] in step.depends_on
        ],
        contact_id=state["contact_id"],
    )


def _outcome(plan: Plan, results: Sequence[StepResult], judgements: Sequence[Judged]) -> dict[str, Any]:
    """What became of a plan of which nothing more can run."""
    success = {result["step_id"]: result["success"] for result in results}
    planned = [step.step_id for step in plan.steps]
    if open_steps := [step_id for step_id in planned if not success.get(step_id)]:
        failed = [step_id for step_id in open_steps if step_id in success]
        waiting = [step_id for step_id in open_steps if step_id not in success]
        detail = f"{_steps(failed)} failed"
        return ended("steps_failed", f"{detail}, {_steps(waiting)} could not run" if waiting else detail)
    if not planned:
        return ended("goal_not_reached", "no step succeeded")
    if not judgements[-1]["success"]:
        return ended("goal_not_reached", judgements[-1]["reasoning"])
    return {"completed": True, "reason": None, "detail": ""}


def _steps(numbers: Iterable[int]) -> str:
    named = [str(number) for number in numbers]
    return f"step {named[0]}" if len(named) == 1 else f"steps {', '.join(named)}"
