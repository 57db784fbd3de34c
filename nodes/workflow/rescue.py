"""A pattern whose failure does not stop what it is in."""

from langgraph.types import Command

from nodes.deps import Node
from nodes.workflow.control import Onward, Ways, control, pattern_record
from nodes.workflow.execution import Plan
from nodes.workflow.moment import Moment
from nodes.workflow.state import StrandState
from workflows.definition.patterns import Loop, Pattern
from workflows.failures import last_failure


def rescue(plan: Plan, pattern: Pattern, ways: Ways) -> Node[StrandState, Onward]:
    """Node: say why the pattern is skipped, leave the loops in it, and go on."""
    inside = {
        place.step.id
        for place in plan.outline.values()
        if place.step.id == pattern.id or pattern.id in dict(place.around)
    }

    def decide(moment: Moment, state: StrandState) -> Onward:
        here, iterations = moment.here, state.get("iterations") or {}
        key = here.key(pattern.id)
        before = here.results.get(key)
        output = before["output"] if before else None
        if isinstance(pattern, Loop):
            output = {"iterations": iterations.get(pattern.id, 0)}
        record = pattern_record(moment, key, "skipped", output=output, error=last_failure(here.results))
        left = {turn: count for turn, count in iterations.items() if turn not in inside}
        return Command(update={"results": {key: record}, "iterations": left}, goto=ways.on)

    return control(plan, pattern, ways, decide)
