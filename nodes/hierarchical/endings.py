"""Ends that are not a success, told honestly and with what was found."""

from collections.abc import Mapping, Sequence
from typing import Any

from nodes.hierarchical.state import Reason, Subtask

_BECAUSE: Mapping[Reason, str] = {
    "max_rounds_reached": "the limit of rounds was reached",
    "decomposition_invalid": "the task could not be divided into subtasks",
    "decision_unreadable": "the manager's replies could not be read",
    "subtasks_failed": "subtasks failed",
    "model_refused": "the model's provider declined to answer",
    "model_unavailable": "the model stopped answering",
}


def ended(subtasks: Sequence[Subtask], reason: Reason, *, detail: str, best: str = "") -> dict[str, Any]:
    """The update that ends a run incomplete, with the best answer so far.

    Args:
        subtasks: All there is.
        reason: Why it ends.
        detail: What exactly, in a few words.
        best: The manager's own answer so far; empty: what the subtasks brought.
    """
    answer = f"I could not finish this: {_BECAUSE[reason]} ({detail.rstrip('.')})."
    best = best.strip() or found(subtasks)
    return {
        "success": False,
        "result": f"{answer} So far: {best}" if best else answer,
        "reason": reason,
        "told_back": "",
    }


def found(subtasks: Sequence[Subtask]) -> str:
    """What the subtasks that are done brought; empty where none are."""
    done = [subtask for subtask in subtasks if subtask["status"] == "done"]
    if len(done) == 1:
        return done[0]["result"]
    return "\n".join(f"{subtask['agent']} ({subtask['id']}): {subtask['result']}" for subtask in done)


def anything_done(subtasks: Sequence[Subtask]) -> bool:
    """Whether there is a result at all."""
    return any(subtask["status"] == "done" for subtask in subtasks)


def losses(subtasks: Sequence[Subtask]) -> str:
    """The subtasks that were not done, each with why."""
    lost = [subtask for subtask in subtasks if subtask["status"] in {"failed", "skipped"}]
    return "; ".join(f"{subtask['id']} {subtask['status']}: {subtask['reason']}" for subtask in lost)
