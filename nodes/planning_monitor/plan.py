"""Plan: the goal, its parts, the steps and what they depend on."""

from nodes.deps import Deps, Node
from nodes.planning_monitor.briefing import planner_messages, with_tool_list
from nodes.planning_monitor.drafting import Next, drafting
from nodes.planning_monitor.schema import Plan, with_tools
from nodes.planning_monitor.state import PlanningState
from nodes.shared.prompts import load_prompt

# Some freedom to find a way; the form is held by the schema and the checks.
TEMPERATURE = 0.3


def plan(deps: Deps) -> Node[PlanningState, Next]:
    """Node: ask for a plan, or for it again with its faults told."""
    return drafting(
        deps,
        with_tools(Plan, deps.tools),
        system=with_tool_list(load_prompt("planning_monitor_plan"), deps.tools),
        shown=planner_messages,
        temperature=TEMPERATURE,
        unreadable="the plan could not be read",
    )
