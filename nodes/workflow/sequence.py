"""A sequence that may be left out."""

from langgraph.types import Command

from nodes.deps import Node
from nodes.workflow.control import Onward, Ways, control, passed_by
from nodes.workflow.execution import Plan
from nodes.workflow.moment import Moment
from nodes.workflow.state import StrandState
from workflows.definition.patterns import Sequential


def enter_sequence(plan: Plan, sequence: Sequential, first: str, ways: Ways) -> Node[StrandState, Onward]:
    """Node: enter the sequence or pass it by."""

    def decide(moment: Moment, _: StrandState) -> Onward:
        return passed_by(moment, sequence, ways) or Command(goto=first)

    return control(plan, sequence, ways, decide)
