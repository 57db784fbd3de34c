"""The results of a wave are there: the next wave, or the manager's decision."""

from typing import Any, Literal, TypeAlias

from langgraph.types import Command

from nodes.hierarchical.plan import skip_blocked, wave
from nodes.hierarchical.state import HierarchicalState

Next: TypeAlias = Command[Literal["work", "decide"]]


async def gather(state: HierarchicalState) -> Next:
    """Node: send what can begin now to work; with nothing left that can, let the manager decide.

    A worker that failed takes with it what depends on it, and nothing else.
    """
    lost = skip_blocked(state["subtasks"])
    update: dict[str, Any] = {"subtasks": lost} if lost else {}
    if next_wave := wave(state, state["subtasks"]):
        return Command(goto=next_wave, update=update)
    return Command(goto="decide", update=update)
