"""Fan-outs: the branches of a pattern, the nodes they run in, and the waves in which they are sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from langgraph.types import Send
from pydantic import JsonValue

from core.errors import StepFailed
from nodes.workflow.execution import StepContext
from nodes.workflow.state import BranchInput
from workflows.expressions import Expression
from workflows.outline import is_pattern
from workflows.results import format_result_key
from workflows.schema import FanOutFanIn, Parallel, Step

FanOut: TypeAlias = Parallel | FanOutFanIn

# Failed branches that the record of a fan-out names; each branch has a record of its own.
_MAX_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch of a fan-out.

    Attributes:
        key: The key of its record.
        node: The node it runs in.
        child: The id of its step; empty: the ``for_each`` body.
        index: The position of its item, for a ``for_each``.
        item: The item.
    """

    key: str
    node: str
    child: str = ""
    index: int = 0
    item: JsonValue = None


def name_branch_node(fan_out: FanOut) -> str:
    """Return the name of the node for branches that are a single working step."""
    return f"{fan_out.id}.branch"


def name_subgraph_node(fan_out: FanOut, child: Step | None) -> str:
    """Return the name of the node for branches of several steps: a ``for_each`` body, or a child pattern."""
    return f"{fan_out.id}.item" if child is None else child.id


def name_join_node(fan_out: FanOut) -> str:
    """Return the name of the node that the branches lead to."""
    return f"{fan_out.id}.join"


def list_parallel_steps(fan_out: FanOut) -> Sequence[Step]:
    """Return the steps that the fan-out starts."""
    return fan_out.steps if isinstance(fan_out, Parallel) else fan_out.fan_out_steps


def is_for_each(fan_out: FanOut) -> bool:
    """Tell whether the steps run once for each item of a list."""
    return isinstance(fan_out, FanOutFanIn) and bool(fan_out.for_each)


def list_branches(context: StepContext, fan_out: FanOut) -> list[Branch]:
    """Return the branches of a fan-out.

    Raises:
        StepFailed: ``for_each`` is not a list here, or has more than ``max_items`` items.
    """
    steps = list_parallel_steps(fan_out)
    if not (isinstance(fan_out, FanOutFanIn) and fan_out.for_each):
        return [
            Branch(
                key=context.location.format_key(child.id),
                node=name_subgraph_node(fan_out, child) if is_pattern(child) else name_branch_node(fan_out),
                child=child.id,
            )
            for child in steps
        ]
    is_single = len(steps) == 1 and not is_pattern(steps[0])
    node = name_branch_node(fan_out) if is_single else name_subgraph_node(fan_out, None)
    step_id = steps[0].id if is_single else ""
    return [
        Branch(key=format_item_key(context, fan_out, index, step_id), node=node, index=index, item=item)
        for index, item in enumerate(_evaluate_items(context, fan_out))
    ]


def build_next_wave(context: StepContext, branches: Sequence[Branch]) -> list[Send]:
    """Return the next branches that have not run, as tasks; empty: all have."""
    results = context.location.results
    due = [branch for branch in branches if branch.key not in results][: context.plan.engine.wave]
    return [
        Send(
            branch.node,
            BranchInput(child=branch.child, index=branch.index, item=branch.item, last=branch is due[-1]),
        )
        for branch in due
    ]


def format_item_key(context: StepContext, fan_out: FanOut, index: int, step_id: str = "") -> str:
    """Return the key of the record that a ``for_each``, or its single step, has for an item."""
    indices = context.location.indices
    outer = [indices[repeater] for repeater in context.plan.outline[fan_out.id].repeaters]
    return format_result_key(step_id or fan_out.id, [*outer, index])


def describe_failures(context: StepContext, failed: Sequence[str]) -> str:
    """Return a summary of failed branches, given the keys of their records; empty: none failed."""
    if not failed:
        return ""
    results = context.location.results
    errors = "; ".join(f"{key}: {results[key]['error']}" for key in failed[:_MAX_NAMED])
    more = f"; and {len(failed) - _MAX_NAMED} more" if len(failed) > _MAX_NAMED else ""
    return f"{len(failed)} failed: {errors}{more}"


def _evaluate_items(context: StepContext, fan_out: FanOutFanIn) -> list[JsonValue]:
    values = context.build_expression_context(fan_out.id, "for_each")
    items = Expression.parse(fan_out.for_each).evaluate(values)
    if not isinstance(items, list):
        raise StepFailed(f"for_each {fan_out.for_each!r} is not a list here; provide one, e.g. with || `[]`")
    if len(items) > fan_out.max_items:
        raise StepFailed(
            f"for_each has {len(items)} items and max_items is {fan_out.max_items}; raise it or take fewer"
        )
    return items
