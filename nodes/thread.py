"""Which thread a step runs on."""

from langgraph.runtime import Runtime

from core.context import Context


def thread_of(runtime: Runtime[Context]) -> str:
    """The thread's id; a graph without a checkpointer has none."""
    info = runtime.execution_info
    return (info.thread_id if info else None) or "no-thread"
