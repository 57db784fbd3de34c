"""Action: one tool call. Calls of one thought run in parallel, a task each."""

from typing import Any

from langgraph.runtime import Runtime

from core.context import Context
from nodes.deps import Deps, Node
from nodes.react.state import ActInput
from tools.call import CallContext, idempotency_key
from tools.execute import execute


def act(deps: Deps) -> Node[ActInput, dict[str, Any]]:
    """Node: carry out the call it is sent."""

    async def act(state: ActInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
        call = state["call"]
        info = runtime.execution_info
        thread_id = (info.thread_id if info else None) or "no-thread"
        context = CallContext(
            contact_id=state["contact_id"],
            idempotency_key=idempotency_key(thread_id, state["message_id"], call["id"] or ""),
        )
        return {"messages": [await execute(deps.tools, call, context)]}

    return act
