"""Read and write a thread's state as LangGraph's clients do."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, PregelTask, StateSnapshot, StateUpdate

from core.errors import BadRequest, InvalidRequest
from service.auth.principal import Identity
from service.runs.graphs import AgentGraph, GraphCatalogue
from service.runs.request import GRAPH_KEY, RUN_KEY, TENANT_KEY, USER_KEY, CompiledGraph
from service.runs.rows import RunRow

# The fields of the API's ThreadState.
State: TypeAlias = dict[str, Any]


class StateChange(NamedTuple):
    """Values to write, and the node in whose name; ``None``: the one that ran last."""

    values: Any
    as_node: str | None


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


def empty_state(thread_id: str, checkpoint_id: str | None = None) -> State:
    """Return the state of a thread on which nothing has run."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_id": checkpoint_id}}
    return describe_state(StateSnapshot({}, (), config, None, None, None, (), ()))


async def load_state(
    graph: AgentGraph, thread_id: str, checkpoint: Mapping[str, Any], *, subgraphs: bool
) -> State:
    """Return a thread's state.

    Args:
        graph: The graph of the thread's runs.
        thread_id: The thread.
        checkpoint: ``checkpoint_id`` and ``checkpoint_ns`` (a subgraph's); empty: the latest of the graph.
        subgraphs: Whether tasks that are subgraphs show their states.

    Raises:
        InvalidRequest: There is no such subgraph.
    """
    compiled = await graph.open("threads.read")
    try:
        snapshot = await compiled.aget_state(_locate(thread_id, checkpoint), subgraphs=subgraphs)
    except ValueError as error:
        raise InvalidRequest(f"checkpoint.checkpoint_ns: {error}") from None
    return describe_state(snapshot)


async def list_states(
    graph: AgentGraph,
    thread_id: str,
    checkpoint: Mapping[str, Any],
    *,
    before: str | None,
    metadata: Mapping[str, Any],
    limit: int,
) -> list[State]:
    """Return a thread's states, the latest first.

    Args:
        graph: The graph of the thread's runs.
        thread_id: The thread.
        checkpoint: ``checkpoint_ns`` of a subgraph; empty: the graph itself.
        before: The checkpoint before which to begin.
        metadata: What the checkpoints' metadata must hold.
        limit: How many at most.

    Raises:
        InvalidRequest: There is no such subgraph.
    """
    compiled = await graph.open("threads.read")
    config = _locate(thread_id, checkpoint)
    ns = checkpoint.get("checkpoint_ns") or ""
    start: RunnableConfig | None = (
        {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": before}}
        if before
        else None
    )
    try:
        history = compiled.aget_state_history(config, filter=dict(metadata), before=start, limit=limit)
        return [describe_state(snapshot) async for snapshot in history]
    except ValueError as error:
        raise InvalidRequest(f"checkpoint.checkpoint_ns: {error}") from None


async def update_state(
    graph: AgentGraph,
    identity: Identity,
    thread_id: str,
    supersteps: Sequence[Sequence[StateChange]],
    *,
    checkpoint: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], bool]:
    """Write values to a thread's state as if nodes had returned them.

    Args:
        graph: The graph of the thread's runs.
        identity: The caller.
        thread_id: The thread, which is at rest and held by the caller.
        supersteps: The changes of each super-step.
        checkpoint: ``checkpoint_id`` and ``checkpoint_ns`` to go on from; empty: the latest.

    Returns:
        The configurable part of the new checkpoint's config, and whether steps are left to do.

    Raises:
        InvalidRequest: The state has no such channel.
        BadRequest: There is no such node, or it cannot be told which one is meant.
    """
    compiled = await graph.open("threads.update")
    config = _locate(thread_id, checkpoint or {})
    config["metadata"] = {
        GRAPH_KEY: graph.name,
        TENANT_KEY: identity.tenant,
        USER_KEY: identity.user,
        "graph_id": graph.name,
    }
    if not (checkpoint or {}).get("checkpoint_ns"):
        _check_channels(compiled, [change for step in supersteps for change in step])
    updates = [[StateUpdate(change.values, change.as_node) for change in step] for step in supersteps]
    try:
        written = await compiled.abulk_update_state(config, updates)
    except (InvalidUpdateError, ValueError) as error:
        raise BadRequest(f"the state cannot be changed like this: {error}") from None
    latest = await compiled.aget_state(written)
    configurable = {
        name: value for name, value in written["configurable"].items() if not name.startswith("__")
    }
    return configurable, bool(latest.next)


def _locate(thread_id: str, checkpoint: Mapping[str, Any]) -> RunnableConfig:
    named = {
        name: checkpoint[name]
        for name in ("checkpoint_id", "checkpoint_ns", "checkpoint_map")
        if checkpoint.get(name)
    }
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **named}}


def _check_channels(graph: CompiledGraph, updates: Sequence[StateChange]) -> None:
    for change in updates:
        values = change.values.update if isinstance(change.values, Command) else change.values
        for each in values if isinstance(values, list) else [values]:
            unknown = sorted(each.keys() - graph.channels.keys()) if isinstance(each, Mapping) else []
            if unknown:
                raise InvalidRequest(f"values.{unknown[0][:100]}: the state has no such field")


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
