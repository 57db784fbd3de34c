"""One of many beside each other."""

from typing import Any, cast

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from nodes.deps import Node
from nodes.workflow.control import Onward, pattern_record
from nodes.workflow.execution import Plan
from nodes.workflow.fan_out import beside, join_node
from nodes.workflow.moment import Moment
from nodes.workflow.state import BranchInput
from nodes.workflow.work import work
from workflows.definition.base import StepBase
from workflows.definition.patterns import FanOutFanIn, Parallel
from workflows.failures import last_failure
from workflows.results import Record, result_key

StrandGraph = CompiledStateGraph[Any, Any, Any, Any]


def branch(plan: Plan, fan: Parallel | FanOutFanIn) -> Node[BranchInput, Onward]:
    """Node: do one working step, for one item where there are items."""
    steps = {step.id: step for step in beside(fan)}
    only = beside(fan)[0]

    async def branch(state: BranchInput, *, runtime: Runtime[Context]) -> Onward:
        moment = Moment.of_branch(plan, fan.id, state, runtime)
        step = cast("StepBase", steps[state["child"]] if state["child"] else only)
        record = await work(step, moment)
        return _ended(fan, state, {moment.here.key(step.id): record} if record else {})

    return branch


def strand(plan: Plan, fan: Parallel | FanOutFanIn, graph: StrandGraph) -> Node[BranchInput, Onward]:
    """Node: run several steps as a graph of their own, which waits for no other at a super-step.

    A person who is asked in one branch holds no other up. The strand shares the thread, has a checkpoint
    namespace of its own and goes on from its own checkpoints; when it ends, its records become the parent's.
    """

    async def strand(state: BranchInput, *, runtime: Runtime[Context]) -> Onward:
        moment = Moment.of_branch(plan, fan.id, state, runtime)
        ended = await graph.ainvoke({"iterations": {}}, context=moment.inside())
        results: dict[str, Record] = dict(ended.get("results") or {})
        child = state["child"]
        key = moment.here.key(child) if child else _item_key(moment, fan, state["index"])
        if ended.get("stopped"):
            output = results[key]["output"] if key in results else None
            error = last_failure(results)
            results[key] = pattern_record(moment, key, "failed", output=output, error=error)
        elif key not in results:
            results[key] = pattern_record(moment, key, "succeeded")
        return _ended(fan, state, results)

    return strand


def _item_key(moment: Moment, fan: Parallel | FanOutFanIn, index: int) -> str:
    turns = [moment.here.turns[turn] for turn in moment.plan.outline[fan.id].turns]
    return result_key(fan.id, [*turns, index])


def _ended(fan: Parallel | FanOutFanIn, sent: BranchInput, results: dict[str, Record]) -> Onward:
    # One leads on for all: a row in the database less for each of the others.
    return Command(update={"results": results}, goto=join_node(fan) if sent["last"] else ())
