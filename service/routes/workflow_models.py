"""Request and response models of ``/v1/workflows``."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, TypeAlias

from langgraph.types import Interrupt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from service.routes.dependencies import Offset
from service.runs.inputs import require_storable
from service.runs.output import format_approval_id
from service.workflows.graphs import RunView
from service.workflows.recovery import RecoveryStrategy
from service.workflows.workflows import Checkpoint
from workflows.json_values import check_size
from workflows.progress import StepProgress, StepState
from workflows.requests import WorkflowRequest
from workflows.results import Record
from workflows.schema import Definition
from workflows.store import RunSummary, Status

Payload: TypeAlias = Annotated[JsonValue, AfterValidator(check_size)]
ClientId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class RunWorkflow(WorkflowRequest):
    """A workflow to run: one of the library by its name, or a definition."""

    _storable = model_validator(mode="before")(require_storable)

    priority: int | None = Field(None, ge=-100, le=100, description="null: the definition's")
    client_id: ClientId | None = Field(
        None, description="Your own id of the run: a repeated request returns the run that was started first"
    )
    wait: bool = Field(
        default=False,
        description="Answer when the run has ended or waits, within a minute; otherwise at once",
    )


class DefinitionFault(BaseModel):
    """Something wrong with a definition."""

    step: str = Field(description="Id of the step; empty: the workflow itself")
    path: str = Field(description="Its place in the definition, such as steps.2.then.0.url")
    field: str
    message: str = Field(description="What is wrong and what to do")


class ValidationReport(BaseModel):
    """Whether a definition is valid."""

    valid: bool
    faults: list[DefinitionFault] = Field(description="Everything that is wrong with it")


class WorkflowError(BaseModel):
    """Why a run failed."""

    error: str
    message: str
    details: dict[str, JsonValue]


class WorkflowSummary(BaseModel):
    """A run in a list."""

    id: str = Field(description="Id of the run, which is its thread's")
    name: str
    client_id: str | None
    status: Status
    priority: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    wake_at: datetime | None = Field(description="When a waiting run continues by itself")
    error: WorkflowError | None

    @classmethod
    def build(cls, run: RunSummary) -> "WorkflowSummary":
        """Return the summary of a run."""
        error = run.error if run.status == "failed" else None
        names = WorkflowSummary.model_fields.keys() - {"error", "client_id"}
        return WorkflowSummary(
            **{name: getattr(run, name) for name in names},
            client_id=run.client_id or None,
            error=WorkflowError.model_validate(error) if error else None,
        )


class StepReport(BaseModel):
    """One step of the definition, over all its executions."""

    id: str
    type: str
    name: str
    state: StepState | Literal["waiting"]
    done: int = Field(description="Number of finished executions")
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float = Field(description="Total time worked, without the wait for a concurrency slot")
    error: str = Field(description="Error of the first execution that failed; empty: none did")


class WaitingFor(BaseModel):
    """What a run waits for."""

    kind: Literal["approval", "signal", "timer"]
    step: str = Field(description="Empty: the question of an agent")
    approval_id: str | None = Field(description="Answer it at /v1/approvals/{id}")
    signal: str | None = Field(description="Send it to /v1/workflows/{id}/signals/{name}")
    due: datetime | None = Field(description="When the wait ends by itself")

    @classmethod
    def build(cls, run_id: str, pending: Interrupt) -> Self:
        """Return what an interrupt of a run waits for."""
        value = pending.value if isinstance(pending.value, dict) else {}
        kind = value.get("kind")
        if kind not in {"signal", "timer"}:
            return cls(
                kind="approval",
                step=str(value.get("step", "")),
                approval_id=format_approval_id(pending.id, run_id),
                signal=None,
                due=None,
            )
        return cls(
            kind=kind,
            step=str(value.get("step", "")),
            approval_id=None,
            signal=value.get("signal") or None,
            due=_to_datetime(value.get("due") or 0),
        )


class WorkflowReport(WorkflowSummary):
    """A run with what it has done."""

    done: int = Field(description="Finished executions of working steps")
    total: int = Field(description="Their expected number, as far as it is known")
    steps: list[StepReport]
    result: JsonValue
    waiting_for: list[WaitingFor]

    @classmethod
    def build_from_view(cls, view: RunView) -> Self:
        """Return the report of a run."""
        is_waiting = view.run.status in {"waiting", "running"}
        waiting = [WaitingFor.build(view.run.id, one) for one in view.interrupts] if is_waiting else []
        waiting_steps = {one.step for one in waiting}
        return cls(
            **WorkflowSummary.build(view.run).model_dump(),
            done=view.progress.done,
            total=view.progress.total,
            steps=[
                _build_step(view, step_id, progress, is_waiting=step_id in waiting_steps)
                for step_id, progress in view.progress.steps.items()
            ],
            result=view.values.get("result"),
            waiting_for=waiting,
        )


class StepOutput(BaseModel):
    """The output of one step, in one iteration of the loops and ``for_each`` patterns around it."""

    key: str = Field(description="The step's id with its iterations, such as notify[3]")
    status: str
    output: JsonValue
    error: str
    attempts: int
    seconds: float

    @classmethod
    def build(cls, key: str, record: Record) -> Self:
        """Return the output that a record holds."""
        return cls(key=key, **{name: record[name] for name in cls.model_fields if name != "key"})  # type: ignore[literal-required]  # its keys


class StepOutputs(BaseModel):
    """A page of step outputs."""

    outputs: list[StepOutput]
    total: int


class Queue(BaseModel):
    """How busy workflows are."""

    runs: dict[Status, int] = Field(description="The tenant's runs, on all services")
    active_steps: int = Field(description="Steps that this service is executing")
    queued_steps: int = Field(description="Steps of this service that wait for a concurrency slot")
    max_concurrent_steps: int
    policy: str


class WorkflowFilter(BaseModel):
    """Which runs to list."""

    status: Status | None = None
    name: str | None = Field(None, max_length=64)
    limit: int = Field(50, ge=1, le=500)
    offset: Offset = 0


class WorkflowList(BaseModel):
    """Runs, the latest first."""

    workflows: list[WorkflowSummary]
    queue: Queue


class RecoverWorkflow(BaseModel):
    """How to make a run continue."""

    model_config = ConfigDict(extra="forbid")

    strategy: RecoveryStrategy
    checkpoint_id: str = Field("", max_length=100, description="One of /v1/workflows/{id}/checkpoints")

    @model_validator(mode="after")
    def _check_checkpoint(self) -> Self:
        if (self.strategy == "rollback_to_checkpoint") != bool(self.checkpoint_id):
            raise ValueError("rollback_to_checkpoint goes with a checkpoint_id, and no other strategy does")
        return self


class RecoveredWorkflow(BaseModel):
    """A run that continues."""

    workflow: WorkflowSummary
    steps: list[str] = Field(description="Keys of the failed steps that run again or are skipped")


class Checkpoints(BaseModel):
    """Checkpoints of a run, the latest first."""

    checkpoints: list[Checkpoint]


class SignalBody(BaseModel):
    """The body of a signal."""

    model_config = ConfigDict(extra="forbid")
    _storable = model_validator(mode="before")(require_storable)

    payload: Payload = None


class LibraryEntry(BaseModel):
    """A workflow of the library."""

    name: str
    description: str
    version: str
    definition: dict[str, JsonValue]

    @classmethod
    def build(cls, definition: Definition) -> Self:
        """Return the entry of a definition."""
        return cls(
            name=definition.name,
            description=definition.description,
            version=definition.version,
            definition=definition.to_json(),
        )


class Library(BaseModel):
    """The definitions of the library."""

    workflows: list[LibraryEntry]


def _build_step(view: RunView, step_id: str, progress: StepProgress, *, is_waiting: bool) -> StepReport:
    step: Any = view.outline[step_id].step
    return StepReport(
        id=step_id,
        type=step.type,
        name=step.name,
        state="waiting" if is_waiting else progress.state,
        done=progress.done,
        started_at=_to_datetime(progress.started),
        finished_at=_to_datetime(progress.finished),
        seconds=progress.seconds,
        error=progress.error,
    )


def _to_datetime(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
