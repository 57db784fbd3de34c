"""Replan: the steps that remain, planned anew as the monitor asks."""

from typing import Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelError
from nodes.deps import Deps, Node, run_context
from nodes.planning_monitor.briefing import replanner_messages, with_tool_list
from nodes.planning_monitor.endings import ended, ended_without_model
from nodes.planning_monitor.schema import Revision, with_tools
from nodes.planning_monitor.state import PlanningState
from nodes.prompts import in_locale, prompt
from nodes.structured import ask

# Less freedom than the first plan: what was done is given, and one change is asked for.
TEMPERATURE = 0.2

Next: TypeAlias = Command[Literal["validate", "finish"]]


def replan(deps: Deps) -> Node[PlanningState, Next]:
    """Node: ask for the remaining steps, or for them again with their faults told."""
    system = with_tool_list(prompt("planning_monitor_replan"), deps.tools)
    schema = with_tools(Revision, deps.tools)

    async def replan(state: PlanningState, *, runtime: Runtime[Context]) -> Next:
        context = run_context(runtime)
        try:
            draft = await ask(
                deps.models,
                replanner_messages(state, in_locale(system, context.locale)),
                schema,
                temperature=TEMPERATURE,
                model=context.model,
            )
        except ModelError as error:
            return ended_without_model(state, error)
        if draft is None:
            return Command(
                goto="finish", update=ended("plan_invalid", "the revision of the plan could not be read")
            )
        return Command(goto="validate", update={"draft": draft.model_dump()})

    return replan
