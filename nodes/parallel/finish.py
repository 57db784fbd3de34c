"""Close the turn: the answer is the thread's last message."""

from typing import Any

from langchain_core.messages import AIMessage

from nodes.parallel.state import ParallelState


async def finish(state: ParallelState) -> dict[str, Any]:
    """Node: append the answer."""
    return {"messages": [AIMessage(state["answer"])]}
