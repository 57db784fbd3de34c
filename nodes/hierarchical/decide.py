"""The manager sees what became of the subtasks, and decides what is next."""

from typing import Any, Literal, TypeAlias

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelError, ModelRefused
from nodes.deps import Deps, Node, get_run_context
from nodes.hierarchical.endings import anything_done, ended, found, losses
from nodes.hierarchical.manager import conversation, instructed, progress, told_back
from nodes.hierarchical.plan import Decision, over
from nodes.hierarchical.rounds import begun
from nodes.hierarchical.state import HierarchicalState
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_structured

# A judgement of what is there, not an invention.
TEMPERATURE = 0.1

Next: TypeAlias = Command[Literal["work", "decide", "finish"]]


def decide(deps: Deps, guidance: str) -> Node[HierarchicalState, Next]:
    """Node: end with the answer, or send further subtasks to work while rounds are left.

    Args:
        deps: For the model.
        guidance: More for the manager to know; empty: nothing.
    """
    system = load_prompt("hierarchical_decide")

    async def decide(state: HierarchicalState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        subtasks = state["subtasks"]
        try:
            decision = await ask_structured(
                deps.models,
                [
                    instructed(system, guidance, state, context),
                    *conversation(state),
                    progress(subtasks),
                    _question(state),
                    *told_back(state),
                ],
                over(Decision, [agent["name"] for agent in state["team"]]),
                temperature=TEMPERATURE,
                model=context.model,
            )
        except ModelRefused as refusal:
            return _end(ended(subtasks, "model_refused", detail=refusal.message))
        except ModelError as error:
            if not anything_done(subtasks):
                raise
            return _end(ended(subtasks, "model_unavailable", detail=error.message))
        if decision is None:
            return _end(ended(subtasks, "decision_unreadable", detail="it did not say what is next"))
        if decision.done:
            return _end(_concluded(state, decision))
        if state["rounds"] >= state["round_limit"]:
            rounds = f"{state['rounds']} of {state['round_limit']} were used"
            return _end(ended(subtasks, "max_rounds_reached", detail=rounds, best=decision.result))
        return begun(state, decision.subtasks, asked_by="decide", best=decision.result)

    return decide


def _question(state: HierarchicalState) -> HumanMessage:
    used, limit = state["rounds"], state["round_limit"]
    more = (
        f"At most {limit - used} more may follow; number new subtasks from {len(state['subtasks']) + 1}."
        if used < limit
        else "No other may follow: conclude with what there is."
    )
    return HumanMessage(
        f"[Decision] Round {used} of {limit} has ended. {more} Is the task done, what is the answer, and "
        "what remains if it is not done?"
    )


def _concluded(state: HierarchicalState, decision: Decision) -> dict[str, Any]:
    """The task is done, the manager says. It is no success when no subtask was."""
    if not anything_done(state["subtasks"]):
        return ended(state["subtasks"], "subtasks_failed", detail=losses(state["subtasks"]))
    return {
        "success": decision.success,
        "result": decision.result.strip() or found(state["subtasks"]),
        "reason": None if decision.success else "subtasks_failed",
        "told_back": "",
    }


def _end(update: dict[str, Any]) -> Next:
    return Command(goto="finish", update=update)
