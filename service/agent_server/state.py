"""A thread's state as LangGraph's clients read it."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.types import PregelTask, StateSnapshot

from service.runs.graphs import GraphCatalogue
from service.runs.request import RUN_KEY, CompiledGraph
from service.runs.store import RunRow

# The fields of the API's ThreadState.
State: TypeAlias = dict[str, Any]

_LOCATION: tuple[str, ...] = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")


def describe_state(snapshot: StateSnapshot) -> State:
    """Return a snapshot as JSON, apart from what the state holds."""
    checkpoint = _describe_checkpoint(snapshot.config)
    parent = _describe_checkpoint(snapshot.parent_config)
    return {
        "values": snapshot.values,
        "next": list(snapshot.next),
        "tasks": [_describe_task(task) for task in snapshot.tasks],
        "metadata": dict(snapshot.metadata or {}),
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": list(snapshot.interrupts),
        "checkpoint_id": checkpoint.get("checkpoint_id") if checkpoint else None,
        "parent_checkpoint_id": parent.get("checkpoint_id") if parent else None,
    }


def list_interrupts(snapshot: StateSnapshot) -> dict[str, list[Any]]:
    """Return the pending interrupts by the task that waits for them."""
    return {task.id: list(task.interrupts) for task in snapshot.tasks if task.interrupts}


async def load_snapshot(graphs: GraphCatalogue, graph: str | None, thread_id: str) -> StateSnapshot | None:
    """Return a thread's latest checkpoint; ``None``: nothing has run on it, or its graph is unknown."""
    known = graphs.get(graph or "")
    if known is None:
        return None
    compiled: CompiledGraph = await known.open("threads.read")
    snapshot = await compiled.aget_state({"configurable": {"thread_id": thread_id}})
    return snapshot if snapshot.created_at else None


async def load_run_end(graphs: GraphCatalogue, run: RunRow) -> StateSnapshot | None:
    """Return the last checkpoint of a run; ``None``: it has none, or they were deleted."""
    known = graphs.get(run.graph)
    if known is None:
        return None
    compiled: CompiledGraph = await known.open("threads.read")
    config: RunnableConfig = {"configurable": {"thread_id": run.thread_id}}
    async for snapshot in compiled.aget_state_history(config, filter={RUN_KEY: run.id}, limit=1):
        return snapshot
    return None


def _describe_checkpoint(config: RunnableConfig | None) -> dict[str, Any] | None:
    if config is None:
        return None
    configurable: Mapping[str, Any] = config.get("configurable", {})
    found = {name: configurable[name] for name in _LOCATION if name in configurable}
    return {"checkpoint_ns": "", "checkpoint_id": None, **found}


def _describe_task(task: PregelTask) -> dict[str, Any]:
    state, checkpoint = task.state, None
    if isinstance(state, StateSnapshot):
        described: Any = describe_state(state)
        checkpoint = described["checkpoint"]
    else:
        # Of a subgraph whose state was not asked for, where it is.
        described, checkpoint = None, _describe_checkpoint(state)
    return {
        "id": task.id,
        "name": task.name,
        "path": list(task.path),
        "error": None if task.error is None else repr(task.error),
        "interrupts": list(task.interrupts),
        "checkpoint": checkpoint,
        "state": described,
        "result": task.result,
    }
