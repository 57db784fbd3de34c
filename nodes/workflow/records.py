"""The records of a workflow in progress, also those of a super-step that is not over."""

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from workflows.outline import Outline, children, is_pattern
from workflows.results import Record, step_of


async def records(graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig) -> dict[str, Record]:
    """Every record that is kept of a thread, wherever: a branch's count before those beside it are done.

    Args:
        graph: The compiled workflow.
        config: With the thread, and a checkpoint where it is not the latest.
    """
    return records_of(await graph.aget_state(config, subgraphs=True))


def running_of(snapshot: StateSnapshot, places: Outline) -> frozenset[str]:
    """Ids of the steps that are at work, or wait for an answer, in a snapshot taken with its subgraphs."""
    found: set[str] = set()
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            found |= running_of(task.state, places)
        elif task.result is None:
            found |= _at_work(task.name, places, records_of(snapshot))
    return frozenset(found)


def _at_work(node: str, places: Outline, known: Mapping[str, Record]) -> set[str]:
    step_id, _, part = node.partition(".")
    if step_id not in places:
        return set()
    if part != "branch":
        return {step_id}
    # One node for all branches of a single step: those without a record, of which some may still wait.
    fan = places[step_id].step
    beside = [child for _, steps in children(fan)[:1] for child in steps if not is_pattern(child)]
    done = {step_of(key) for key in known}
    return {child.id for child in beside if child.id not in done or places[child.id].turns}


def records_of(snapshot: StateSnapshot) -> dict[str, Record]:
    """The records in a snapshot that was taken with its subgraphs."""
    found: dict[str, Record] = dict(snapshot.values.get("results") or {})
    for task in snapshot.tasks:
        if isinstance(task.result, dict):
            found |= task.result.get("results") or {}
        elif isinstance(task.state, StateSnapshot):
            found |= records_of(task.state)
    return found
