"""Both judgements of a version put together: send it, refine it, or end with the best there is."""

from typing import Literal, TypeAlias

from langgraph.types import Command

from nodes.critique_refine.state import CritiqueRefineState, Reason
from nodes.critique_refine.versions import score, version

Next: TypeAlias = Command[Literal["refine", "finish"]]


async def judge(state: CritiqueRefineState) -> Next:
    """Node: record the version and decide.

    A judgement that is missing approves nothing, whatever the other one says, and ends the run.
    """
    judged = version(state["draft"], state["cycles"], state["critique"], state["validation"])
    update = {"history": [*state["history"], judged]}
    if _is_good_enough(state):
        return Command(goto="finish", update={**update, "success": True})
    if reason := _end(state):
        return Command(goto="finish", update={**update, "reason": reason})
    return Command(goto="refine", update=update)


def _is_good_enough(state: CritiqueRefineState) -> bool:
    critique, validation = state["critique"], state["validation"]
    if critique is None or validation is None:
        return False
    return validation["approved"] and score(critique["total"]) >= state["threshold"]


def _end(state: CritiqueRefineState) -> Reason | None:
    at_limit: Reason | None = "max_cycles_reached" if state["cycles"] >= state["cycle_limit"] else None
    return state["critique_fault"] or state["validation_fault"] or at_limit
