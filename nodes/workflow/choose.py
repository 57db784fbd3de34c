"""One way or the other."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from langgraph.types import Command

from nodes.deps import Node
from nodes.workflow.control import Onward, Ways, control, passed_by, recorded
from nodes.workflow.execution import Plan
from nodes.workflow.moment import Moment
from nodes.workflow.state import StrandState
from workflows.conditions import holds
from workflows.definition.patterns import Conditional

Branch: TypeAlias = Literal["then", "otherwise"]


def choose(
    plan: Plan, conditional: Conditional, first: Mapping[Branch, str], ways: Ways
) -> Node[StrandState, Onward]:
    """Node: take the branch that the condition says, or said when it was asked before.

    Args:
        plan: Of the workflow.
        conditional: The step.
        first: Where each branch begins.
        ways: Where it leads.
    """

    def decide(moment: Moment, _: StrandState) -> Onward:
        record = moment.here.results.get(moment.here.key(conditional.id))
        if record is not None and record["status"] != "skipped" and isinstance(record["output"], dict):
            return Command(goto=first["then" if record["output"].get("branch") == "then" else "otherwise"])
        if past := passed_by(moment, conditional, ways):
            return past
        chosen: Branch = (
            "then"
            if holds(conditional.condition, moment.context(conditional.id, "condition"))
            else "otherwise"
        )
        return recorded(moment, conditional, "succeeded", first[chosen], output={"branch": chosen})

    return control(plan, conditional, ways, decide)
