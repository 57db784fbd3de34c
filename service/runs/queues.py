"""Kinds of runs that must not keep each other waiting: each has places and a time limit of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from core.settings import RunSettings, WorkflowSettings
from service.runs.concurrency_slots import RunSlots, run_slots

Lane: TypeAlias = Literal["runs", "workflows"]


@dataclass(frozen=True, slots=True)
class RunLane:
    """Limits of one kind of run.

    Attributes:
        slots: Its places.
        timeout_seconds: Time limit of a run.
    """

    slots: RunSlots
    timeout_seconds: float


def run_lanes(runs: RunSettings, workflows: WorkflowSettings, *, shared: bool) -> Mapping[Lane, RunLane]:
    """The lanes as the settings say.

    Args:
        runs: Limits of runs.
        workflows: Those of workflows, where they differ.
        shared: Whether several tenants share the places.
    """
    # A tenant's share of the runs says nothing of workflows: of those it has the usual one.
    own = {"max_concurrent": workflows.max_concurrent, "max_concurrent_per_tenant": None}
    return {
        "runs": RunLane(run_slots(runs, shared=shared), runs.timeout_seconds),
        "workflows": RunLane(
            run_slots(runs.model_copy(update=own), shared=shared), workflows.timeout_seconds
        ),
    }
