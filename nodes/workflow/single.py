"""A working step, one after the other."""

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from nodes.deps import Node
from nodes.workflow.control import Onward, Ways
from nodes.workflow.execution import Plan
from nodes.workflow.moment import Moment
from nodes.workflow.state import StrandState
from nodes.workflow.work import work
from workflows.definition.base import StepBase


def single(plan: Plan, step: StepBase, ways: Ways) -> Node[StrandState, Onward]:
    """Node: do the step and go on."""

    async def single(state: StrandState, *, runtime: Runtime[Context]) -> Onward:
        moment = Moment.of(plan, state, runtime)
        record = await work(step, moment)
        if record is None:
            return Command(goto=ways.on)
        goto = ways.fail if record["status"] == "failed" else ways.on
        return Command(update={"results": {moment.here.key(step.id): record}}, goto=goto)

    return single
