"""Check what was planned, and begin with it."""

from typing import Any, Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from nodes.deps import Deps, Node
from nodes.planning_monitor.endings import ended
from nodes.planning_monitor.faults import step_faults, sub_goal_faults
from nodes.planning_monitor.schema import Plan, PlanStep, Revision
from nodes.planning_monitor.state import PlanningState
from nodes.planning_monitor.waves import onward

Next: TypeAlias = Command[Literal["plan", "replan", "execute", "finish"]]


def validate(deps: Deps) -> Node[PlanningState, Next]:
    """Node: put the draft in force and send out its first wave, or tell its faults back, once."""
    tools = tuple(deps.tools)

    async def validate(state: PlanningState, *, runtime: Runtime[Context]) -> Next:  # noqa: ARG001
        drafted, faults = _revised(state, tools) if state["plan"] else _planned(state, tools)
        if not faults:
            return onward(state, drafted, judgements=state["judgements"], update=_in_force(state, drafted))
        if state["faults"]:
            return Command(goto="finish", update=ended("plan_invalid", "; ".join(faults)))
        return Command(goto="replan" if state["plan"] else "plan", update={"faults": faults})

    return validate


def _planned(state: PlanningState, tools: tuple[str, ...]) -> tuple[Plan, list[str]]:
    plan = Plan.model_validate(state["draft"])
    numbers = {sub_goal.number for sub_goal in plan.sub_goals}
    faults = [
        *sub_goal_faults(plan.sub_goals),
        *step_faults(plan.steps, sub_goals=numbers, tools=tools),
    ]
    return plan, faults


def _revised(state: PlanningState, tools: tuple[str, ...]) -> tuple[Plan, list[str]]:
    """The plan with its remaining steps replaced. Those that failed are no part of it any more."""
    plan, revision = Plan.model_validate(state["plan"]), Revision.model_validate(state["draft"])
    done = {result["step_id"] for result in state["results"] if result["success"]}
    faults = step_faults(
        revision.steps,
        sub_goals={sub_goal.number for sub_goal in plan.sub_goals},
        tools=tools,
        done=done,
        failed={result["step_id"] for result in state["results"]} - done,
    )
    steps: list[PlanStep] = [step for step in plan.steps if step.step_id in done]
    return plan.model_copy(update={"steps": [*steps, *revision.steps]}), faults


def _in_force(state: PlanningState, plan: Plan) -> dict[str, Any]:
    revisions = state["revisions"] + 1 if state["plan"] else 0
    return {"plan": plan.model_dump(), "revisions": revisions, "draft": None, "faults": []}
