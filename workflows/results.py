"""What is kept of each step that ran."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import JsonValue
from typing_extensions import TypedDict

Status: TypeAlias = Literal["running", "succeeded", "failed", "skipped"]


class Record(TypedDict):
    """What is kept of one step, in one turn of the loops and ``for_each`` around it.

    ``skipped`` means that nothing waits for it: its ``when`` did not hold, or it failed and may. ``error`` is
    empty where nothing failed. Times are seconds since the epoch; ``seconds`` is without the wait for a slot
    before the first attempt. A pattern's ``attempts`` are 0; of a plain sequence nothing is kept.
    """

    status: Status
    output: JsonValue
    error: str
    started: float
    finished: float
    seconds: float
    attempts: int


Results: TypeAlias = Mapping[str, Record]
Turns: TypeAlias = Mapping[str, int]


def result_key(step_id: str, turns: Sequence[int] = ()) -> str:
    """Where a record is: the step's id and the turn of each loop and ``for_each`` around, ``notify[3]``."""
    return step_id + "".join(f"[{turn}]" for turn in turns)


def step_of(key: str) -> str:
    """The id of the step a record is of."""
    return key.partition("[")[0]


def is_done(record: Record | None) -> bool:
    """Whether the step need not run again."""
    return record is not None and record["status"] in {"succeeded", "skipped"}


def turns_made(record: Record | None, name: Literal["items", "iterations"]) -> int:
    """How many items or iterations a pattern's record says it had."""
    output = record["output"] if record else None
    made = output.get(name) if isinstance(output, dict) else 0
    return made if isinstance(made, int) else 0
