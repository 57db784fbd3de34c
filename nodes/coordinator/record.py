"""Close the turn: the answer joins the conversation."""

from typing import Any

from langchain_core.messages import AIMessage

from nodes.coordinator.state import CoordinatorState


async def record(state: CoordinatorState) -> dict[str, Any]:
    """Node: append the answer, and remember who the customer talks with."""
    return {
        "messages": [AIMessage(state["response"])],
        "last_agent": state["agent_used"] or state.get("last_agent", ""),
    }
