"""What ``/v1/workflows`` is asked and answers."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from service.runs.request import require_storable
from workflows.numbers import LARGEST
from workflows.progress import StepState
from workflows.store import Status

MOST_CHARACTERS = 1_000_000


def _bounded(value: JsonValue) -> JsonValue:
    """The value, when a checkpoint can hold it and it is no larger than a workflow needs."""
    level: list[JsonValue] = [value]
    size = 0
    while level:
        size += sum(len(one) if isinstance(one, str) else 1 for one in level)
        if size > MOST_CHARACTERS:
            raise ValueError(f"holds more than {MOST_CHARACTERS:,} characters and values")
        if any(isinstance(one, int) and abs(one) >= LARGEST for one in level):
            raise ValueError("holds a whole number of more than 64 bits: send it as text")
        level = [child for one in level for child in _inside(one)]
    return value


def _inside(value: JsonValue) -> Iterable[JsonValue]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


Values: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(_bounded)]
Payload: TypeAlias = Annotated[JsonValue, AfterValidator(_bounded)]
ClientId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class RunWorkflow(BaseModel):
    """A workflow to run: one of the library by its name, or a definition."""

    model_config = ConfigDict(extra="forbid")
    _storable = model_validator(mode="before")(require_storable)

    name: str | None = Field(None, max_length=64, description="Of the library")
    definition: dict[str, JsonValue] | None = Field(None, description="As /v1/workflows/schema says")
    input: Values = Field({}, description="As the definition's inputs say")
    priority: int | None = Field(None, ge=-100, le=100, description="None: the definition's")
    client_id: ClientId | None = Field(
        None, description="Your own id of the run: asked for again, it is the run that was begun first"
    )
    wait: bool = Field(False, description="Answer when it is over or waits, within a minute; else at once")  # noqa: FBT003

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.name is None) == (self.definition is None):
            raise ValueError("give either the name of a workflow of the library, or a definition")
        return self


class StepFault(BaseModel):
    """One thing wrong with a definition."""

    step: str = Field(description="Id of the step; empty: the workflow itself")
    path: str = Field(description="Its place in the definition, steps.2.then.0.url")
    field: str
    message: str = Field(description="What is wrong and what to do")


class Validated(BaseModel):
    """Whether a definition is valid."""

    valid: bool
    faults: list[StepFault] = Field(description="All of them")


class WorkflowError(BaseModel):
    """Why it failed."""

    error: str
    message: str
    details: dict[str, JsonValue]


class WorkflowSummary(BaseModel):
    """A run in a list."""

    id: str = Field(description="Of the run, which is its thread")
    name: str
    client_id: str | None
    status: Status
    priority: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    wake_at: datetime | None = Field(description="When a waiting one goes on by itself")
    error: WorkflowError | None


class StepReport(BaseModel):
    """One step of the definition, in all its turns together."""

    id: str
    type: str
    name: str
    state: StepState | Literal["waiting"]
    done: int = Field(description="Turns that are over")
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float = Field(description="Of work in all turns, without the wait for a slot")
    error: str = Field(description="Of the first turn that failed; empty: none did")


class WaitingFor(BaseModel):
    """What a run waits for."""

    kind: Literal["approval", "signal", "timer"]
    step: str = Field(description="Empty: a question of an agent's own")
    approval_id: str | None = Field(description="Answer it at /v1/approvals/{id}")
    signal: str | None = Field(description="Send it to /v1/workflows/{id}/signals/{name}")
    due: datetime | None = Field(description="When it is over by itself")


class WorkflowReport(WorkflowSummary):
    """A run with what it has done."""

    done: int = Field(description="Working steps that are over, each turn counted")
    total: int = Field(description="Those it comes to, as far as is known")
    steps: list[StepReport]
    result: JsonValue
    waiting_for: list[WaitingFor]


class StepOutput(BaseModel):
    """What one step gave, in one turn of the loops and ``for_each`` around it."""

    key: str = Field(description="Its id and turns: notify[3]")
    status: str
    output: JsonValue
    error: str
    attempts: int
    seconds: float


class StepOutputs(BaseModel):
    """A page of them."""

    outputs: list[StepOutput]
    total: int


class Queue(BaseModel):
    """How busy workflows are."""

    runs: dict[Status, int] = Field(description="The tenant's, on all services")
    active_steps: int = Field(description="Steps in progress in this service")
    queued_steps: int = Field(description="Steps of this service that wait for a slot")
    max_concurrent_steps: int
    policy: str


class Which(BaseModel):
    """Which runs are listed."""

    status: Status | None = None
    name: str | None = Field(None, max_length=64)
    limit: int = Field(50, ge=1, le=500)
    offset: int = Field(0, ge=0, le=1_000_000)


class WorkflowList(BaseModel):
    """Runs, the latest first."""

    workflows: list[WorkflowSummary]
    queue: Queue


class Recover(BaseModel):
    """How a run goes on."""

    model_config = ConfigDict(extra="forbid")

    strategy: Literal["retry", "skip_failed_step", "rollback_to_checkpoint"]
    checkpoint_id: str = Field("", max_length=100, description="One of /v1/workflows/{id}/checkpoints")

    @model_validator(mode="after")
    def _names_its_checkpoint(self) -> Self:
        if (self.strategy == "rollback_to_checkpoint") != bool(self.checkpoint_id):
            raise ValueError("rollback_to_checkpoint goes with a checkpoint_id, and no other strategy does")
        return self


class Recovered(BaseModel):
    """What goes on."""

    workflow: WorkflowSummary
    steps: list[str] = Field(description="Keys of the failed steps it is about")


class CheckpointReport(BaseModel):
    """A moment a run can go back to."""

    checkpoint_id: str
    created_at: datetime
    next: list[str] = Field(description="What ran next; empty: it was over")
    done: int = Field(description="Working steps that were over")


class Checkpoints(BaseModel):
    """The latest first."""

    checkpoints: list[CheckpointReport]


class Signal(BaseModel):
    """What comes with a signal."""

    model_config = ConfigDict(extra="forbid")
    _storable = model_validator(mode="before")(require_storable)

    payload: Payload = None


class LibraryEntry(BaseModel):
    """A workflow of the library."""

    name: str
    description: str
    version: str
    definition: dict[str, JsonValue]


class Library(BaseModel):
    """Named definitions."""

    workflows: list[LibraryEntry]
