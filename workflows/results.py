"""Records of the steps that ran, and the failures among them."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import JsonValue
from typing_extensions import TypedDict

from workflows.outline import Outline, OutlineEntry

RecordStatus: TypeAlias = Literal["running", "succeeded", "failed", "skipped"]


class Record(TypedDict):
    """The record of one step, in one iteration of the loops and ``for_each`` patterns around it.

    ``skipped`` means that nothing waits for the step: its ``when`` was not met, or it failed and may fail.
    ``error`` is empty unless the step failed. Times are seconds since the epoch; ``seconds`` leaves out the
    wait for a concurrency slot before the first attempt. A pattern has 0 ``attempts``; a plain sequence has
    no record.
    """

    status: RecordStatus
    output: JsonValue
    error: str
    started: float
    finished: float
    seconds: float
    attempts: int


# Records by their keys.
Results: TypeAlias = Mapping[str, Record]
# The current iteration of each loop (from 1) and item of each for_each (from 0), by the pattern's id.
Indices: TypeAlias = Mapping[str, int]


def format_result_key(step_id: str, indices: Sequence[int] = ()) -> str:
    """Return a record's key: the step's id and its index in each repeater around it, as in ``notify[3]``."""
    return step_id + "".join(f"[{index}]" for index in indices)


def parse_step_id(key: str) -> str:
    """Return the id of the step that a record's key names."""
    return key.partition("[")[0]


def is_done(record: Record | None) -> bool:
    """Tell whether a step need not run again."""
    return record is not None and record["status"] in {"succeeded", "skipped"}


def read_count(record: Record | None, name: Literal["items", "iterations"]) -> int:
    """Return how many items or iterations a pattern's record has in its output."""
    output = record["output"] if record else None
    count = output.get(name) if isinstance(output, dict) else 0
    return count if isinstance(count, int) else 0


def find_blocking_failures(outline: Outline, results: Results) -> list[str]:
    """Return the keys of failed records that no ``on_error: skip`` covers, in the order they finished."""
    return [
        key
        for key, record in results.items()
        if record["status"] == "failed" and not _may_fail(outline, outline[parse_step_id(key)])
    ]


def find_root_causes(outline: Outline, failed: list[str]) -> list[str]:
    """Return those failures that no other failure inside them caused."""
    caused = {ancestor for key in failed for ancestor in _list_ancestor_keys(outline, key)}
    return [key for key in failed if key not in caused]


def describe_last_failure(results: Results) -> str:
    """Return the key and the error of the step that failed last."""
    key, record = [(key, record) for key, record in results.items() if record["status"] == "failed"][-1]
    return f"{key}: {record['error']}"


def _may_fail(outline: Outline, entry: OutlineEntry) -> bool:
    step_ids = [entry.step.id, *(pattern for pattern, _ in entry.ancestors)]
    return any(outline[step_id].step.on_error == "skip" for step_id in step_ids)


def _list_ancestor_keys(outline: Outline, key: str) -> list[str]:
    """Return the keys of the patterns around a record, and of their items that it is in."""
    step_id, _, rest = key.partition("[")
    suffixes = [f"[{index}" for index in rest.split("[")] if rest else []
    keys = []
    for pattern in (*(name for name, _ in outline[step_id].ancestors), step_id):
        depth = len(outline[pattern].repeaters)
        lengths = range(depth, min(depth + 1, len(suffixes)) + 1)
        keys += [pattern + "".join(suffixes[:length]) for length in lengths]
    return [ancestor for ancestor in keys if ancestor != key]
