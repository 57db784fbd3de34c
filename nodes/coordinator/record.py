"""Close the turn: the answer joins the conversation, and memory is told of both."""

from typing import Any

from langchain_core.messages import AIMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.memory import Scope
from nodes.coordinator.decisions import is_goodbye
from nodes.coordinator.state import CoordinatorState
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.memory import MemoryUse, PendingMessage, current_time, derive_answer_id, record_messages


def record(deps: Deps) -> Node[CoordinatorState, dict[str, Any]]:
    """Node: append the answer, and remember who the customer talks with.

    Memory that does not answer keeps nobody from theirs: what it was to be told stays in the state, and the
    next turn tells it.
    """

    async def record(state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        identity = derive_answer_id(state["turn"])
        answer = PendingMessage(
            id=identity, role="agent", text=state["response"], at=current_time(), channel_id=_channel(state)
        )
        scope = Scope(get_run_context(runtime).tenant, state["contact_id"])
        said = [*state["outbox"], *([answer] if state["response"] else [])]
        fault = await record_messages(deps.memory, scope, state["session_id"], said)
        return {
            "messages": [AIMessage(state["response"], id=identity)],
            "last_agent": state["agent_used"] or state.get("last_agent", ""),
            "ends_session": _is_over(state),
            "outbox": said if fault else [],
            "memory": _use(state["memory"], fault),
        }

    return record


def _is_over(state: CoordinatorState) -> bool:
    """Whether a person took over, or the customer said goodbye."""
    handed_over = state["path"] == "handoff" and state["handoff"]["recorded"]
    return handed_over or is_goodbye(state["message"])


def _channel(state: CoordinatorState) -> str:
    return state["outbox"][-1]["channel_id"] if state["outbox"] else ""


def _use(use: MemoryUse, fault: str) -> MemoryUse:
    degraded = [*use["degraded"], *([f"record: {fault}"] if fault else [])]
    return MemoryUse(available=use["available"], degraded=degraded, recorded=not fault)
