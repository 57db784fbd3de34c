"""Where in a run a node is: what it sees, and what it calls itself to the outside."""

import time
from collections import ChainMap
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from langgraph.config import get_config
from langgraph.pregel._read import ChannelRead  # what LangGraph's own conditional edges read with
from langgraph.runtime import Runtime
from pydantic import JsonValue

from core.context import Context
from nodes.deps import get_run_context, get_thread_id
from nodes.workflow.execution import Plan
from nodes.workflow.state import BranchInput, StrandContext, StrandState, Surroundings
from workflows.context import Here
from workflows.outline import loops_and_items

# Between the calendar a version 6 UUID counts from (1582-10-15, in 100 ns) and the epoch.
_GREGORIAN: Final = 0x01B21DD213814000


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A node's view of its run.

    Attributes:
        plan: Of the workflow.
        here: What expressions see.
        parameters: Of the run.
        workflow_id: What idempotency keys begin with.
        since: When the super-step began, in seconds since the epoch: the same when it runs again.
    """

    plan: Plan
    here: Here
    parameters: Context
    workflow_id: str
    since: float

    @classmethod
    def of(cls, plan: Plan, state: StrandState, runtime: Runtime[Context]) -> "Moment":
        """Of a node that was given its strand's state."""
        context = get_run_context(runtime)
        around = context.surroundings if isinstance(context, StrandContext) else None
        if around is None:
            around = Surroundings(workflow_id=get_thread_id(runtime), given=state.get("input") or {})
        here = Here(
            outline=plan.outline,
            given=around.given,
            results=ChainMap(state.get("results") or {}, around.results),  # type: ignore[arg-type]  # not written
            turns={**around.turns, **(state.get("iterations") or {})},
            item=around.item,
            index=around.index,
        )
        return cls(
            plan=plan,
            here=here,
            parameters=context,
            workflow_id=around.workflow_id,
            since=_began(runtime),
        )

    @classmethod
    def of_branch(cls, plan: Plan, fan: str, sent: BranchInput, runtime: Runtime[Context]) -> "Moment":
        """Of one of many beside each other, which was sent no state and reads that of its super-step."""
        moment = cls.of(plan, read_state(), runtime)
        if sent["child"]:
            return moment
        here = replace(
            moment.here,
            turns={**moment.here.turns, fan: sent["index"]},
            item=sent["item"],
            index=sent["index"],
        )
        return replace(moment, here=here)

    def context(self, step_id: str, field: str = "") -> dict[str, JsonValue]:
        """What a step's expressions see.

        Args:
            step_id: Whose.
            field: The one field that is evaluated; empty: all.
        """
        turns = loops_and_items(self.plan.outline[step_id], field)
        return self.here.context(self.plan.referred(step_id, field), turns)

    def inside(self) -> StrandContext:
        """What a strand that is run in this moment is told."""
        around = Surroundings(
            workflow_id=self.workflow_id,
            given=self.here.given,
            results=self.here.results,
            turns=self.here.turns,
            item=self.here.item,
            index=self.here.index,
        )
        return StrandContext.of(self.parameters, around)


def read_state() -> StrandState:
    """The state of the super-step this is called in.

    A task that was sent to gets what it was sent and nothing else. Sending the state along would write it
    into the checkpoint once for each of thousands of tasks.
    """
    read: StrandState = ChannelRead.do_read(get_config(), select=["input", "results", "iterations"])
    return read


def _began(runtime: Runtime[Context]) -> float:
    """When the checkpoint was made that the super-step runs on; its id tells, a version 6 UUID (RFC 9562)."""
    info = runtime.execution_info
    if info is None:
        return time.time()
    made = UUID(info.checkpoint_id)
    ticks = (made.time_low << 28) | (made.time_mid << 12) | (made.time_hi_version & 0x0FFF)
    return (ticks - _GREGORIAN) / 1e7
