"""What the branches brought, and whether that needs merging."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from nodes.deps import Node
from nodes.parallel.races import Races
from nodes.parallel.state import Branch, ParallelState, Reason

Next: TypeAlias = Command[Literal["merge", "finish"]]


def gather(races: Races) -> Node[ParallelState, Next]:
    """Node: take the answer, have several merged, or end without one."""

    async def gather(state: ParallelState, *, runtime: Runtime[Context]) -> Next:  # noqa: ARG001
        races.forget(state["race"])
        good = answered(state["branches"])
        if not good:
            return Command(goto="finish", update=_nothing(state["branches"]))
        if state["race"]:
            return Command(goto="finish", update=taken(good[0], "first_answer"))
        if len(good) == 1:
            return Command(goto="finish", update=taken(good[0], "only_answer"))
        return Command(goto="merge")

    return gather


def answered(branches: Sequence[Branch]) -> list[Branch]:
    """Those with a good answer."""
    return [branch for branch in branches if branch["status"] == "answered"]


def taken(branch: Branch, reason: Reason) -> dict[str, Any]:
    """The update that makes one branch's answer the run's."""
    return {
        "success": True,
        "answer": branch["answer"],
        "answered_by": [branch["name"]],
        "reason": reason,
    }


def _nothing(branches: Sequence[Branch]) -> dict[str, Any]:
    each = "; ".join(f"{branch['name']}: {branch['reason']}" for branch in branches)
    return {"answer": f"None of the agents could answer ({each}).", "reason": "no_branch_answered"}
