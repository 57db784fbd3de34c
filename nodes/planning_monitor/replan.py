"""Replan: the steps that remain, planned anew as the monitor asks."""

from nodes.deps import Deps, Node
from nodes.planning_monitor.briefing import replanner_messages, with_tool_list
from nodes.planning_monitor.drafting import Next, drafting
from nodes.planning_monitor.schema import Revision, with_tools
from nodes.planning_monitor.state import PlanningState
from nodes.shared.prompts import load_prompt

# Less freedom than the first plan: what was done is given, and one change is asked for.
TEMPERATURE = 0.2


def replan(deps: Deps) -> Node[PlanningState, Next]:
    """Node: ask for the remaining steps, or for them again with their faults told."""
    return drafting(
        deps,
        with_tools(Revision, deps.tools),
        system=with_tool_list(load_prompt("planning_monitor_replan"), deps.tools),
        shown=replanner_messages,
        temperature=TEMPERATURE,
        unreadable="the revision of the plan could not be read",
    )
