"""Ends that are not a success, told honestly and with what was found."""

from collections.abc import Mapping
from typing import Any

from nodes.react.state import ReactState, ReasonIncomplete

_BECAUSE: Mapping[ReasonIncomplete, str] = {
    "max_iterations_reached": "the limit of steps was reached",
    "model_reply_unreadable": "the model's replies could not be read",
    "model_refused": "the model's provider declined to answer",
    "tool_unavailable": "a system that is needed did not answer",
    "task_failed": "the task could not be carried out",
}


def ended(state: ReactState, reason: ReasonIncomplete, *, detail: str) -> dict[str, Any]:
    """The update that ends a run incomplete, with the best answer so far.

    Args:
        state: The run's state; its ``trace`` holds all that is known.
        reason: Why it ends.
        detail: What exactly, in a few words.
    """
    best = best_so_far(state)
    answer = f"I could not finish this: {_BECAUSE[reason]} ({detail})."
    return {
        "trace": state["trace"],
        "success": False,
        "final_answer": f"{answer} So far: {best}" if best else answer,
        "reason_incomplete": reason,
        "unreadable": None,
    }


def best_so_far(state: ReactState) -> str:
    """The latest answer a reflection gave, else its latest judgement, else the latest thought in words."""
    for wanted in ("final_answer", "reasoning"):
        for entry in reversed(state["trace"]):
            if said := str((entry["reflection"] or {}).get(wanted) or "").strip():
                return said
    thoughts = (entry["thought"].strip() for entry in reversed(state["trace"]))
    return next(filter(None, thoughts), "")
