"""A request that comes twice: what its first run came to is the answer, and no agent works on it again.

The second one waits for the thread like any other run; when its turn comes the first has ended, and it is
given that one's answer, or goes on with it where it broke off.
"""

from collections.abc import AsyncGenerator
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot, StreamPart

# Where a checkpoint's metadata names the message, or the request, its run was about.
MESSAGE_KEY = "message_id"


async def earlier_run(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    config: RunnableConfig,
    key: str,
    latest: StateSnapshot,
    *,
    thorough: bool,
) -> StateSnapshot | None:
    """Where the run of a request stands; called while its thread is held.

    Args:
        graph: What ran.
        config: Names the thread.
        key: Names the request.
        latest: The thread's latest checkpoint.
        thorough: Look at earlier ones too. One that is not known to have come before can only have been
            overtaken by its own repetition, just now.

    Returns:
        Its last checkpoint: finished, waiting with a question, or broken off and then also the thread's
        latest. None for a request no run was begun with, or whose run was replaced before its end.
    """
    if _is_about(latest, key):
        return latest
    if thorough:
        async for snapshot in graph.aget_state_history(config, filter={MESSAGE_KEY: key}, limit=1):
            return None if is_broken_off(snapshot) else snapshot
    return None


def _is_about(snapshot: StateSnapshot, key: str) -> bool:
    return key in {(snapshot.metadata or {}).get(MESSAGE_KEY), snapshot.values.get("turn")}


def is_broken_off(snapshot: StateSnapshot) -> bool:
    """Whether there are steps left that wait for nobody.

    ``next`` leaves those out that have written and whose checkpoint was not made any more.
    """
    return bool(snapshot.tasks) and not snapshot.interrupts


async def replayed(
    graph: CompiledStateGraph[Any, Any, Any, Any], snapshot: StateSnapshot
) -> AsyncGenerator[StreamPart[Any, Any], None]:
    """The run's output as its stream ended."""
    names = graph.output_channels
    values = {name: snapshot.values[name] for name in names if name in snapshot.values}
    yield {"type": "values", "ns": (), "data": values, "interrupts": snapshot.interrupts}
