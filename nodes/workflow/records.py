"""The records of a workflow in progress, also those of a super-step that is not over."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from workflows.results import Record


async def records(graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig) -> dict[str, Record]:
    """Every record that is kept of a thread, wherever: a branch's count before those beside it are done.

    Args:
        graph: The compiled workflow.
        config: With the thread, and a checkpoint where it is not the latest.
    """
    return records_of(await graph.aget_state(config, subgraphs=True))


def records_of(snapshot: StateSnapshot) -> dict[str, Record]:
    """The records in a snapshot that was taken with its subgraphs."""
    found: dict[str, Record] = dict(snapshot.values.get("results") or {})
    for task in snapshot.tasks:
        if isinstance(task.result, dict):
            found |= task.result.get("results") or {}
        elif isinstance(task.state, StateSnapshot):
            found |= records_of(task.state)
    return found
