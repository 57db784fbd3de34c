"""Begin a run on a thread: the task becomes a message, what the last run left is cleared."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.deps import Deps, Node
from nodes.react.state import ReactInput
from nodes.shared.agent import check_tool_names
from nodes.shared.context import reset_context


def prepare(deps: Deps) -> Node[ReactInput, dict[str, Any]]:
    """Node: open the turn.

    Raises:
        InvalidRequest: The input names a tool there is not.
    """

    async def prepare(state: ReactInput, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        check_tool_names(deps.tools, state.tools)
        message = HumanMessage(state.task, id=str(uuid4()))
        return {
            **reset_context(state.background),
            "messages": [message],
            "turn": message.id,
            "iteration_limit": state.max_iterations,
            "reflect_when": state.reflection,
            "allowed_tools": state.tools,
            "guidance": state.instruction,
            "warmth": state.temperature,
            "strategy": state.retrieval,
            "iterations": 0,
            "trace": [],
            "unreadable": None,
            "success": False,
            "final_answer": "",
            "reason_incomplete": None,
        }

    return prepare
