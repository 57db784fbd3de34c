"""Ends that are not a success, told honestly and with what was done."""

from collections.abc import Mapping
from typing import Any

from langgraph.types import Command

from core.errors import ModelError, ModelRefused
from nodes.planning_monitor.state import PlanningState, Reason

BECAUSE: Mapping[Reason, str] = {
    "aborted": "the monitor stopped the plan",
    "plan_invalid": "no valid plan could be made",
    "monitor_unreadable": "the monitor's replies could not be read",
    "max_revisions_reached": "the plan was revised as often as it may be",
    "steps_failed": "steps of the plan failed",
    "goal_not_reached": "the steps ran, and the goal was not reached",
    "model_refused": "the model's provider declined to answer",
    "model_unavailable": "the model stopped answering",
}


def ended(reason: Reason, detail: str) -> dict[str, Any]:
    """The update that ends a run incomplete.

    Args:
        reason: Why it ends.
        detail: What exactly, in a few words or the monitor's own.
    """
    return {"completed": False, "reason": reason, "detail": detail, "draft": None, "faults": []}


def ended_without_model(state: PlanningState, error: ModelError) -> Command[Any]:
    """End with what was done so far.

    Raises:
        ModelError: The same, where nothing was done: the run can be taken up again.
    """
    if isinstance(error, ModelRefused):
        return Command(goto="finish", update=ended("model_refused", error.message))
    if any(result["success"] for result in state["results"]):
        return Command(goto="finish", update=ended("model_unavailable", error.message))
    raise error
