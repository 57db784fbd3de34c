"""A message that comes twice: what its first run came to is the answer, and no agent works on it again."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot, StreamPart

# Where a checkpoint's metadata names the message its run was about.
MESSAGE_KEY = "message_id"


async def earlier_run(
    graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig, message_id: str
) -> StateSnapshot | None:
    """Where the run of a message stands; called while its thread is held.

    Returns:
        Its last checkpoint: finished, waiting with a question, or broken off and then also the thread's
        latest. None for a message no run was begun with, or whose run was replaced before its end.
    """
    latest = await graph.aget_state(config)
    if latest.values.get("turn") == message_id:
        return latest
    async for snapshot in graph.aget_state_history(config, filter={MESSAGE_KEY: message_id}, limit=1):
        return snapshot if not snapshot.next else None
    return None


def is_broken_off(snapshot: StateSnapshot) -> bool:
    """Whether there are steps left that wait for nobody."""
    return bool(snapshot.next) and not snapshot.interrupts


async def replayed(
    graph: CompiledStateGraph[Any, Any, Any, Any], snapshot: StateSnapshot
) -> AsyncIterator[StreamPart[Any, Any]]:
    """The run's output as its stream ended."""
    names = graph.output_channels
    values = {name: snapshot.values[name] for name in names if name in snapshot.values}
    yield {"type": "values", "ns": (), "data": values, "interrupts": snapshot.interrupts}
