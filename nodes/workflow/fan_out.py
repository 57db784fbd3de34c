"""Many beside each other: sent in waves, joined when all are done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from langgraph.types import Command, Send
from pydantic import JsonValue

from core.errors import StepFailed
from nodes.deps import Node
from nodes.workflow.control import Onward, Ways, control, passed_by, pattern_record, recorded
from nodes.workflow.execution import Plan
from nodes.workflow.moment import Moment
from nodes.workflow.state import BranchInput, StrandState
from workflows.definition.patterns import FanOutFanIn, Parallel, Step
from workflows.expressions import Expression
from workflows.outline import is_pattern
from workflows.results import result_key

# Failures that a record names; all have their own.
_NAMED = 5


def branch_node(fan: Parallel | FanOutFanIn) -> str:
    """The node of the branches that are a single working step."""
    return f"{fan.id}.branch"


def strand_node(fan: Parallel | FanOutFanIn, child: Step | None) -> str:
    """The node of a branch of several steps: a ``for_each`` body, or a pattern among the children."""
    return f"{fan.id}.item" if child is None else child.id


def join_node(fan: Parallel | FanOutFanIn) -> str:
    """The node they lead to."""
    return f"{fan.id}.join"


def beside(fan: Parallel | FanOutFanIn) -> Sequence[Step]:
    """The steps of the fan-out."""
    return fan.steps if isinstance(fan, Parallel) else fan.fan_out_steps


def is_for_each(fan: Parallel | FanOutFanIn) -> bool:
    """Whether the steps run once for each item of a list."""
    return isinstance(fan, FanOutFanIn) and bool(fan.for_each)


@dataclass(frozen=True, slots=True)
class _Branch:
    """One of them: where its record is, and how it is sent."""

    key: str
    node: str
    child: str
    index: int
    item: JsonValue


def fan_out(plan: Plan, fan: Parallel | FanOutFanIn, ways: Ways, after: str) -> Node[StrandState, Onward]:
    """Node: send the first wave.

    Args:
        plan: Of the workflow.
        fan: The step.
        ways: Past it.
        after: What follows the join: the first fan-in step, where there are some.
    """

    def decide(moment: Moment, _: StrandState) -> Onward:
        record = moment.here.results.get(moment.here.key(fan.id))
        if record is not None and record["status"] == "succeeded":
            return Command(goto=after)
        if past := passed_by(moment, fan, ways):
            return past
        branches = list(_branches(moment, fan))
        output: JsonValue = {"items": len(branches)} if is_for_each(fan) else None
        goto = _wave(moment, branches) or join_node(fan)
        return recorded(moment, fan, "running", goto, output=output)

    return control(plan, fan, ways, decide)


def join(plan: Plan, fan: Parallel | FanOutFanIn, ways: Ways) -> Node[StrandState, Onward]:
    """Node: send the next wave, or say how all of them ended."""

    def decide(moment: Moment, _: StrandState) -> Onward:
        branches = list(_branches(moment, fan))
        if wave := _wave(moment, branches):
            return Command(goto=wave)
        results, key = moment.here.results, moment.here.key(fan.id)
        failed = [one.key for one in branches if results[one.key]["status"] == "failed"]
        record = pattern_record(moment, key, "failed" if failed else "succeeded", error=_said(moment, failed))
        record["output"] = results[key]["output"]
        return Command(update={"results": {key: record}}, goto=ways.fail if failed else ways.on)

    return control(plan, fan, ways, decide)


def _wave(moment: Moment, branches: Sequence[_Branch]) -> list[Send]:
    """The next of them that have not run."""
    results = moment.here.results
    due = [branch for branch in branches if branch.key not in results][: moment.plan.engine.wave]
    return [
        Send(
            branch.node,
            BranchInput(child=branch.child, index=branch.index, item=branch.item, last=branch is due[-1]),
        )
        for branch in due
    ]


def _branches(moment: Moment, fan: Parallel | FanOutFanIn) -> Iterator[_Branch]:
    steps = beside(fan)
    if not is_for_each(fan):
        for child in steps:
            node = strand_node(fan, child) if is_pattern(child) else branch_node(fan)
            yield _Branch(moment.here.key(child.id), node, child.id, 0, None)
        return
    single = len(steps) == 1 and not is_pattern(steps[0])
    node, step_id = (branch_node(fan), steps[0].id) if single else (strand_node(fan, None), fan.id)
    turns = [moment.here.turns[turn] for turn in moment.plan.outline[fan.id].turns]
    for index, item in enumerate(_items(moment, fan)):
        yield _Branch(result_key(step_id, [*turns, index]), node, "", index, item)


def _items(moment: Moment, fan: Parallel | FanOutFanIn) -> list[JsonValue]:
    assert isinstance(fan, FanOutFanIn)  # noqa: S101 - the caller asked
    items = Expression.parse(fan.for_each).evaluate(moment.context(fan.id, "for_each"))
    if not isinstance(items, list):
        raise StepFailed(f"for_each {fan.for_each!r} is not a list here; give it one, e.g. with || `[]`")
    if len(items) > fan.max_items:
        raise StepFailed(
            f"for_each has {len(items)} items, and max_items allows {fan.max_items}; raise it or take fewer"
        )
    return items


def _said(moment: Moment, failed: Sequence[str]) -> str:
    if not failed:
        return ""
    named = "; ".join(f"{key}: {moment.here.results[key]['error']}" for key in failed[:_NAMED])
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return f"{len(failed)} failed: {named}{more}"
