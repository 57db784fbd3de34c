"""Close the turn: the result is the thread's last message."""

from typing import Any

from langchain_core.messages import AIMessage

from nodes.hierarchical.state import HierarchicalState


async def finish(state: HierarchicalState) -> dict[str, Any]:
    """Node: append the result."""
    return {"messages": [AIMessage(state["result"])]}
