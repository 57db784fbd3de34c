"""Action: one tool call. Calls of one thought run in parallel, a task each."""

from typing import Any

from langchain_core.messages import ToolMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.deps import Deps, Node, get_run_context, get_thread_id
from nodes.react.state import ActInput
from nodes.shared.agent import select_tools
from nodes.shared.approval import request_approval
from tools.execution import CallContext, derive_idempotency_key, execute


def act(deps: Deps) -> Node[ActInput, dict[str, Any]]:
    """Node: carry out the call it is sent, once a person has approved it where that is needed."""

    async def act(state: ActInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
        tools = select_tools(deps.tools, state["allowed_tools"])
        call = request_approval(tools, state["call"], state["contact_id"])
        if isinstance(call, ToolMessage):
            return {"messages": [call]}
        context = CallContext(
            contact_id=state["contact_id"],
            idempotency_key=derive_idempotency_key(
                get_thread_id(runtime), state["message_id"], call["id"] or ""
            ),
            tenant=get_run_context(runtime).tenant,
            strategy=state.get("strategy", "general"),
        )
        return {"messages": [await execute(tools, call, context)]}

    return act
