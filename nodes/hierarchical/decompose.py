"""The manager divides the task."""

from typing import Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelRefused
from nodes.deps import Deps, Node, get_run_context
from nodes.hierarchical.endings import ended
from nodes.hierarchical.manager import conversation, instructed, told_back
from nodes.hierarchical.plan import Decomposition, over
from nodes.hierarchical.rounds import begun
from nodes.hierarchical.state import HierarchicalState
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_structured

# The same task is to be divided in the same way.
TEMPERATURE = 0.2

Next: TypeAlias = Command[Literal["work", "decompose", "finish"]]


def decompose(deps: Deps, guidance: str) -> Node[HierarchicalState, Next]:
    """Node: name the first subtasks and send them to work.

    Args:
        deps: For the model.
        guidance: More for the manager to know; empty: nothing.
    """
    system = load_prompt("hierarchical_decompose")

    async def decompose(state: HierarchicalState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        try:
            plan = await ask_structured(
                deps.models,
                [instructed(system, guidance, state, context), *conversation(state), *told_back(state)],
                over(Decomposition, [agent["name"] for agent in state["team"]]),
                temperature=TEMPERATURE,
                model=context.model,
            )
        except ModelRefused as refusal:
            return Command(goto="finish", update=ended([], "model_refused", detail=refusal.message))
        if plan is None:
            end = ended([], "decision_unreadable", detail="it did not say how to divide the task")
            return Command(goto="finish", update=end)
        return begun(state, plan.subtasks, asked_by="decompose")

    return decompose
