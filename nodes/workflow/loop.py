"""The same steps again and again."""

from dataclasses import replace

from langgraph.types import Command

from nodes.deps import Node
from nodes.workflow.control import Onward, Ways, control, passed_by, recorded
from nodes.workflow.execution import Plan
from nodes.workflow.moment import Moment
from nodes.workflow.state import StrandState
from workflows.conditions import holds
from workflows.definition.patterns import Loop
from workflows.results import is_done


def enter_loop(plan: Plan, loop: Loop, first: str, ways: Ways) -> Node[StrandState, Onward]:
    """Node: begin the first iteration or pass the loop by."""

    def decide(moment: Moment, state: StrandState) -> Onward:
        if is_done(moment.here.results.get(moment.here.key(loop.id))):
            return Command(goto=ways.on)
        if past := passed_by(moment, loop, ways):
            return past
        return Command(update={"iterations": {**(state.get("iterations") or {}), loop.id: 1}}, goto=first)

    return control(plan, loop, ways, decide)


def next_iteration(plan: Plan, loop: Loop, first: str, ways: Ways) -> Node[StrandState, Onward]:
    """Node: begin the next iteration, or end the loop at its limit or where its break condition holds."""

    def decide(moment: Moment, state: StrandState) -> Onward:
        iterations = state.get("iterations") or {}
        made = iterations[loop.id]
        breaks = loop.break_condition is not None and holds(
            loop.break_condition, moment.context(loop.id, "break_condition")
        )
        if not breaks and made < loop.max_iterations:
            return Command(update={"iterations": {**iterations, loop.id: made + 1}}, goto=first)
        ended = recorded(moment, loop, "succeeded", ways.on, output={"iterations": made})
        left = {turn: count for turn, count in iterations.items() if turn != loop.id}
        return replace(ended, update={**ended.update, "iterations": left})  # type: ignore[dict-item]  # a dict

    return control(plan, loop, ways, decide)
