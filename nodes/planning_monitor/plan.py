"""Plan: the goal, its parts, the steps and what they depend on."""

from typing import Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelError
from nodes.deps import Deps, Node, run_context
from nodes.planning_monitor.briefing import planner_messages, with_tool_list
from nodes.planning_monitor.endings import ended, ended_without_model
from nodes.planning_monitor.schema import Plan, with_tools
from nodes.planning_monitor.state import PlanningState
from nodes.prompts import in_locale, prompt
from nodes.structured import ask

# Some freedom to find a way; the form is held by the schema and the checks.
TEMPERATURE = 0.3

Next: TypeAlias = Command[Literal["validate", "finish"]]


def plan(deps: Deps) -> Node[PlanningState, Next]:
    """Node: ask for a plan, or for it again with its faults told."""
    system = with_tool_list(prompt("planning_monitor_plan"), deps.tools)
    schema = with_tools(Plan, deps.tools)

    async def plan(state: PlanningState, *, runtime: Runtime[Context]) -> Next:
        context = run_context(runtime)
        try:
            draft = await ask(
                deps.models,
                planner_messages(state, in_locale(system, context.locale)),
                schema,
                temperature=TEMPERATURE,
                model=context.model,
            )
        except ModelError as error:
            return ended_without_model(state, error)
        if draft is None:
            return Command(goto="finish", update=ended("plan_invalid", "the plan could not be read"))
        return Command(goto="validate", update={"draft": draft.model_dump()})

    return plan
