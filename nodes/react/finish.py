"""Close the turn: the answer is the thread's last message."""

from typing import Any

from langchain_core.messages import AIMessage

from core.texts import make_storable
from nodes.react.state import ReactState


async def finish(state: ReactState) -> dict[str, Any]:
    """Node: append the answer, unless the last thought was it."""
    last = state["messages"][-1]
    if (
        isinstance(last, AIMessage)
        and not last.tool_calls
        and make_storable(last.text) == state["final_answer"]
    ):
        return {}
    return {"messages": [AIMessage(state["final_answer"])]}
