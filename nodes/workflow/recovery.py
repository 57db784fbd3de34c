"""Recovery: read a workflow's records from its checkpoints, and make one that failed continue."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot

from core.errors import NotFound, NothingToResume
from workflows.outline import Outline, build_outline, is_pattern, list_children
from workflows.results import Record, find_blocking_failures, find_root_causes, parse_step_id
from workflows.schema import Definition, Parallel

WorkflowGraph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What to run the workflow's thread with.

    Attributes:
        input: The input of the run; None: it resumes at its latest checkpoint.
        steps: The keys of the failed records that it runs again or skips.
    """

    input: Command[Any] | None
    steps: tuple[str, ...] = ()


async def read_records(graph: WorkflowGraph, config: RunnableConfig) -> dict[str, Record]:
    """Return the records of a thread, including those of branches whose super-step is not finished.

    Args:
        graph: The compiled workflow.
        config: Names the thread, and a checkpoint unless it is the latest.
    """
    return extract_records(await graph.aget_state(config, subgraphs=True))


def extract_records(snapshot: StateSnapshot) -> dict[str, Record]:
    """Return the records in a snapshot that was taken with its subgraphs."""
    records: dict[str, Record] = dict(snapshot.values.get("results") or {})
    for task in snapshot.tasks:
        if isinstance(task.result, dict):
            records |= task.result.get("results") or {}
        elif isinstance(task.state, StateSnapshot):
            records |= extract_records(task.state)
    return records


def find_running_steps(snapshot: StateSnapshot, outline: Outline) -> frozenset[str]:
    """Return the ids of steps that run or wait for an answer, in a snapshot taken with its subgraphs."""
    running: set[str] = set()
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            running |= find_running_steps(task.state, outline)
        elif task.result is None:
            running |= _find_steps_of_node(task.name, outline, extract_records(snapshot))
    return frozenset(running)


def _find_steps_of_node(node: str, outline: Outline, records: Mapping[str, Record]) -> set[str]:
    step_id, _, suffix = node.partition(".")
    if step_id not in outline:
        return set()
    if suffix != "branch":
        return {step_id}
    # One node runs all branches of a single step: those without a record run or wait for a slot.
    fan_out = outline[step_id].step
    steps = [child for _, steps in list_children(fan_out)[:1] for child in steps if not is_pattern(child)]
    done = {parse_step_id(key) for key in records}
    return {child.id for child in steps if child.id not in done or outline[child.id].repeaters}


async def retry(graph: WorkflowGraph, config: RunnableConfig, definition: Definition) -> Recovery:
    """Run the failed steps again, and no step that is done; an interrupted workflow resumes or starts.

    Raises:
        NothingToResume: No step failed.
    """
    snapshot = await graph.aget_state(config)
    # A workflow that was cancelled before it started has no checkpoint. ``next`` would not do instead of
    # ``tasks``: it leaves out tasks that have written but whose process died before the next checkpoint.
    if snapshot.created_at is None or snapshot.tasks:
        return Recovery(None)
    return _restart(definition, snapshot, skip=False)


async def skip_failed_step(graph: WorkflowGraph, config: RunnableConfig, definition: Definition) -> Recovery:
    """Continue as if the failed steps had ``on_error: skip``; they keep their errors and have no output.

    Raises:
        NothingToResume: No step failed.
    """
    return _restart(definition, await graph.aget_state(config), skip=True)


async def rollback_to_checkpoint(
    graph: WorkflowGraph, config: RunnableConfig, checkpoint_id: str
) -> Recovery:
    """Continue from an earlier checkpoint: later steps run again, with the same idempotency keys.

    The history stays; a copy of the checkpoint becomes the latest. No run may hold the thread meanwhile.

    Raises:
        NotFound: The thread has no such checkpoint.
        NothingToResume: The workflow had ended at that checkpoint.
    """
    configurable = {**config["configurable"], "checkpoint_id": checkpoint_id}
    snapshot = await graph.aget_state({"configurable": configurable})
    if snapshot.created_at is None:
        raise NotFound(f"the workflow has no checkpoint {checkpoint_id!r}; its history lists them")
    if not snapshot.next:
        raise NothingToResume(f"at checkpoint {checkpoint_id!r} the workflow had ended; use an earlier one")
    await graph.aupdate_state(snapshot.config, None, as_node="__copy__")
    return Recovery(None)


def _restart(definition: Definition, snapshot: StateSnapshot, *, skip: bool) -> Recovery:
    outline = build_outline(definition)
    results: Mapping[str, Record] = snapshot.values.get("results") or {}
    if snapshot.values.get("status") != "failed":
        raise NothingToResume("the workflow has not failed; there is nothing to recover")
    failures = find_blocking_failures(outline, results)
    causes = find_root_causes(outline, failures)
    changes: dict[str, Record | None] = dict.fromkeys(failures)
    if skip:
        changes |= {key: {**results[key], "status": "skipped"} for key in causes}
    update: dict[str, Any] = {
        "results": changes,
        "status": "running",
        "error": "",
        "failed": [],
        "result": None,
    }
    goto = _find_node(outline, causes[0]) if causes else "finish"
    iterations: Mapping[str, int] = snapshot.values.get("iterations") or {}
    if goto in iterations:
        # The loop's break condition failed, after an iteration that is done.
        if skip:
            update["iterations"] = {loop: count for loop, count in iterations.items() if loop != goto}
        else:
            goto = f"{goto}.next"
    return Recovery(Command(update=update, goto=goto), tuple(causes))


def _find_node(outline: Outline, key: str) -> str:
    """Return the node of the workflow's own graph in which a step failed."""
    entry = outline[parse_step_id(key)]
    for pattern, field in entry.ancestors:
        if isinstance(outline[pattern].step, Parallel) or field == "fan_out_steps":
            return pattern
    return entry.step.id
