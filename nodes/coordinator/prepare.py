"""Begin a run on a session: the message joins the conversation, what the last run left is cleared."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.coordinator.state import NO_HANDOFF, CoordinatorInput
from nodes.shared.memory import NO_MEMORY_USE, PendingMessage, current_time


async def prepare(state: CoordinatorInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: open the turn. A session is a thread, so its id is the thread's wherever there is one."""
    info = runtime.execution_info
    message = HumanMessage(state.message, id=state.message_id or str(uuid4()))
    turn = str(message.id)
    said = PendingMessage(
        id=turn, role="customer", text=state.message, at=current_time(), channel_id=state.channel_id
    )
    return {
        "messages": [message],
        "turn": turn,
        "outbox": [said],
        "session_id": (info.thread_id if info else None) or state.session_id,
        "customer": "",
        "context": [],
        "ends_session": False,
        "memory": NO_MEMORY_USE,
        "dispatched": [],
        "alternatives": [],
        "attempts": [],
        "handoff": NO_HANDOFF,
        "path": "agent",
        "success": False,
        "response": "",
        "agent_used": "",
        "category": "",
        "confidence": 0.0,
        "reason": None,
    }
