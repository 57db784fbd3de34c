"""What the nodes of patterns have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command
from pydantic import JsonValue

from core.context import Context
from core.errors import StepFailed
from nodes.deps import Node
from nodes.workflow.execution import Plan
from nodes.workflow.moment import Moment
from nodes.workflow.state import StrandState
from workflows.conditions import holds
from workflows.definition.patterns import Pattern
from workflows.results import Record, Status

# Where a node leads, and what it keeps.
Onward: TypeAlias = Command[Any]
Decide: TypeAlias = Callable[[Moment, StrandState], Onward]


@dataclass(frozen=True, slots=True)
class Ways:
    """Where a step leads.

    Attributes:
        on: After it.
        fail: Where it failed and may not.
    """

    on: str
    fail: str


def control(plan: Plan, pattern: Pattern, ways: Ways, decide: Decide) -> Node[StrandState, Onward]:
    """Node: decide where a pattern goes on; an expression that cannot be evaluated is its failure."""

    async def control(state: StrandState, *, runtime: Runtime[Context]) -> Onward:
        moment = Moment.of(plan, state, runtime)
        try:
            return decide(moment, state)
        except StepFailed as error:
            return recorded(moment, pattern, "failed", ways.fail, error=error.message)

    return control


def passed_by(moment: Moment, pattern: Pattern, ways: Ways) -> Onward | None:
    """The way past a pattern that is done or whose ``when`` does not hold; None: it is to be entered."""
    record = moment.here.results.get(moment.here.key(pattern.id))
    if record is not None and record["status"] == "skipped":
        return Command(goto=ways.on)
    if not holds(pattern.when, moment.context(pattern.id, "when")):
        return recorded(moment, pattern, "skipped", ways.on)
    return None


def recorded(
    moment: Moment, pattern: Pattern, status: Status, goto: Any, *, output: JsonValue = None, error: str = ""
) -> Onward:
    """Go on, with a record of the pattern."""
    key = moment.here.key(pattern.id)
    return Command(
        update={"results": {key: pattern_record(moment, key, status, output=output, error=error)}}, goto=goto
    )


def pattern_record(
    moment: Moment, key: str, status: Status, *, output: JsonValue = None, error: str = ""
) -> Record:
    """The record of a pattern that began when the one before it says, or now."""
    now = moment.plan.engine.clock()
    before = moment.here.results.get(key)
    started = before["started"] if before else now
    return Record(
        status=status,
        output=output,
        error=error,
        started=started,
        finished=now,
        seconds=round(now - started, 6),
        attempts=0,
    )
