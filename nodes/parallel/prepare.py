"""Begin a run on a thread: the question becomes a message, for agents that know their tools."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.deps import Deps, Node
from nodes.parallel.agents import checked
from nodes.parallel.state import ParallelInput
from nodes.shared.context import reset_context


def prepare(deps: Deps) -> Node[ParallelInput, dict[str, Any]]:
    """Node: open the turn, with agents none of which names an unknown tool."""

    async def prepare(state: ParallelInput, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        turn = str(uuid4())
        return {
            **reset_context(),
            "messages": [HumanMessage(state.question, id=turn)],
            "asked": checked(state.agents, deps.tools),
            "seconds": state.branch_timeout_seconds,
            "race": turn if state.mode == "first" else "",
            "branches": [],
            "success": False,
            "answer": "",
            "answered_by": [],
            "reason": None,
        }

    return prepare
