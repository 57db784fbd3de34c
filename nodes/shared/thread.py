"""Which thread a step runs on, and whether its graph is a part of another's run."""

from typing import Any, Final, Literal, TypeAlias

from langgraph.runtime import Runtime

from core.context import Context

Caller: TypeAlias = Literal["told", "alone"]
# What LangGraph puts between the namespaces of a graph and of one inside it.
_NAMESPACE_SEPARATOR: Final = "|"


def thread_of(runtime: Runtime[Context]) -> str:
    """The thread's id; a graph without a checkpointer has none."""
    info = runtime.execution_info
    return (info.thread_id if info else None) or "no-thread"


def by_caller(state: Any, runtime: Runtime[Context]) -> Caller:  # noqa: ARG001 - the face of an edge
    """Edge: ``told`` where the graph is a step of another's run, which tells it what it knows."""
    info = runtime.execution_info
    return "told" if info and _NAMESPACE_SEPARATOR in info.checkpoint_ns else "alone"
