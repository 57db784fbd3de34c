"""A run as HTTP shows it: its row, and what its checkpoints say of its steps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from langgraph.types import Interrupt

from nodes.workflow.records import records_of, running_of
from service.routes.workflow_models import (
    StepOutput,
    StepReport,
    WaitingFor,
    WorkflowError,
    WorkflowReport,
    WorkflowSummary,
)
from service.runs.output import format_approval_id
from service.workflows.run_request import WorkflowGraphs
from workflows.definition.workflow import Definition
from workflows.outline import Outline, outline
from workflows.progress import Progress, StepProgress, progress
from workflows.results import Record
from workflows.store import Run, RunSummary


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at a moment.

    Attributes:
        run: Its row.
        definition: It runs.
        places: The definition's steps by their ids.
        values: Of its thread's latest state.
        interrupts: What it waits for.
        records: Of its steps so far.
        progress: Made of them.
    """

    run: Run
    definition: Definition
    places: Outline
    values: Mapping[str, Any]
    interrupts: Sequence[Interrupt]
    records: Mapping[str, Record]
    progress: Progress

    @classmethod
    async def of(cls, graphs: WorkflowGraphs, run: Run) -> "RunView":
        """Look at a run now."""
        definition = graphs.definition(run.definition)
        places = outline(definition)
        if run.status == "queued" and run.started_at is None:
            return cls(run, definition, places, {}, (), {}, progress(definition, places, {}))
        config: Any = {"configurable": {"thread_id": run.id}}
        snapshot = await graphs.of(run.definition).aget_state(config, subgraphs=True)
        records = records_of(snapshot)
        # One that was stopped has tasks to do, and nobody at them.
        at_work = frozenset() if run.ended else running_of(snapshot, places)
        found = progress(definition, places, records, at_work)
        return cls(run, definition, places, snapshot.values, snapshot.interrupts, records, found)

    def report(self) -> WorkflowReport:
        """The whole of it."""
        waiting = list(self._waiting_for()) if self.run.status in {"waiting", "running"} else []
        asks = {one.step for one in waiting}
        return WorkflowReport(
            **summary(self.run).model_dump(),
            done=self.progress.done,
            total=self.progress.total,
            steps=[self._step(step_id, one, asks) for step_id, one in self.progress.steps.items()],
            result=self.values.get("result"),
            waiting_for=waiting,
        )

    def outputs(self) -> Iterator[StepOutput]:
        """What each step gave, in the order they ended."""
        for key, record in self.records.items():
            yield StepOutput(
                key=key,
                status=record["status"],
                output=record["output"],
                error=record["error"],
                attempts=record["attempts"],
                seconds=record["seconds"],
            )

    def _step(self, step_id: str, found: StepProgress, waiting: set[str]) -> StepReport:
        step = self.places[step_id].step
        return StepReport(
            id=step_id,
            type=step.type,
            name=step.name,
            state="waiting" if step_id in waiting else found.state,
            done=found.done,
            started_at=_time(found.started),
            finished_at=_time(found.finished),
            seconds=found.seconds,
            error=found.error,
        )

    def _waiting_for(self) -> Iterator[WaitingFor]:
        for pending in self.interrupts:
            yield _waiting(self.run.id, pending)


def summary(run: RunSummary) -> WorkflowSummary:
    """A run in a list."""
    error = run.error if run.status == "failed" else None
    names = WorkflowSummary.model_fields.keys() - {"error", "client_id"}
    return WorkflowSummary(
        **{name: getattr(run, name) for name in names},
        client_id=run.client_id or None,
        error=WorkflowError.model_validate(error) if error else None,
    )


def _waiting(run_id: str, pending: Interrupt) -> WaitingFor:
    value = pending.value if isinstance(pending.value, dict) else {}
    kind = value.get("kind")
    waits = kind in {"signal", "timer"}
    return WaitingFor(
        kind=kind if waits else "approval",
        step=str(value.get("step", "")),
        approval_id=None if waits else format_approval_id(pending.id, run_id),
        signal=value.get("signal") or None if waits else None,
        due=_time(value.get("due") or 0) if waits else None,
    )


def _time(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
