"""How a workflow that failed goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot
from pydantic import JsonValue

from core.errors import NotFound, NothingToResume
from workflows.definition.workflow import Definition
from workflows.failures import blocking, causes
from workflows.outline import Outline, outline
from workflows.results import Record, step_of

WorkflowGraph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What to run the workflow's thread with.

    Attributes:
        input: The run's input; None: it goes on at its latest checkpoint.
        steps: Keys of the records it is about.
    """

    input: Command[Any] | None
    steps: tuple[str, ...] = ()


async def retry(graph: WorkflowGraph, config: RunnableConfig, definition: Definition) -> Recovery:
    """Run the failed steps again, and nothing that is done; one that was broken off goes on, or begins.

    Raises:
        NothingToResume: Nothing failed.
    """
    snapshot = await graph.aget_state(config)
    # One that was cancelled before it began has no checkpoint. And ``next`` would not do: it leaves out steps
    # that have written, and died before their checkpoint was made.
    if snapshot.created_at is None or snapshot.tasks:
        return Recovery(None)
    return _again(definition, snapshot, skip=False)


async def skip_failed_step(graph: WorkflowGraph, config: RunnableConfig, definition: Definition) -> Recovery:
    """Go on as if the failed steps said ``on_error: skip``; they keep their errors and have no output.

    Raises:
        NothingToResume: Nothing failed.
    """
    return _again(definition, await graph.aget_state(config), skip=True)


async def rollback_to_checkpoint(
    graph: WorkflowGraph, config: RunnableConfig, checkpoint_id: str
) -> Recovery:
    """Go on from an earlier checkpoint: what ended after it runs again, with the same idempotency keys.

    The history stays; a copy of the checkpoint becomes the latest. No run may hold the thread meanwhile.

    Raises:
        NotFound: The thread has no such checkpoint.
        NothingToResume: It is one at which the workflow was over.
    """
    place = {**config["configurable"], "checkpoint_id": checkpoint_id}
    earlier = await graph.aget_state({"configurable": place})
    if earlier.created_at is None:
        raise NotFound(f"the workflow has no checkpoint {checkpoint_id!r}; its history lists them")
    if not earlier.next:
        raise NothingToResume(f"at checkpoint {checkpoint_id!r} the workflow was over; choose an earlier one")
    await graph.aupdate_state(earlier.config, None, as_node="__copy__")
    return Recovery(None)


def _again(definition: Definition, snapshot: StateSnapshot, *, skip: bool) -> Recovery:
    places = outline(definition)
    results: Mapping[str, Record] = snapshot.values.get("results") or {}
    if snapshot.values.get("status") != "failed":
        raise NothingToResume("the workflow has not failed; there is nothing to recover")
    failed = blocking(places, results)
    stopped = causes(places, failed)
    changes: dict[str, Record | None] = dict.fromkeys(failed)
    if skip:
        changes |= {key: _skipped(results[key]) for key in stopped}
    update: dict[str, Any] = {
        "results": changes,
        "status": "running",
        "error": "",
        "failed": [],
        "result": None,
    }
    goto = _node(places, stopped[0]) if stopped else "finish"
    iterations: Mapping[str, int] = snapshot.values.get("iterations") or {}
    if goto in iterations:
        # The loop's own break condition failed, after an iteration that is done.
        if skip:
            update["iterations"] = {turn: made for turn, made in iterations.items() if turn != goto}
        else:
            goto = f"{goto}.next"
    return Recovery(Command(update=update, goto=goto), tuple(stopped))


def _skipped(record: Record) -> Record:
    output: JsonValue = record["output"]
    return {**record, "status": "skipped", "output": output}


def _node(places: Outline, key: str) -> str:
    """The node of the workflow's own strand in which a step failed."""
    place = places[step_of(key)]
    for pattern, field in place.around:
        if _fans_out(places, pattern, field):
            return pattern
    return place.step.id


def _fans_out(places: Outline, pattern: str, field: str) -> bool:
    return places[pattern].step.type == "parallel" or field == "fan_out_steps"
