"""Request bodies of the Agent Server API. Fields that have no effect are refused."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from service.agent_server.run_body import CheckpointBody, CommandBody, ConfigBody, drop_nulls
from service.routes.agent_server.http import MAX_LIMIT
from service.routes.dependencies import MAX_OFFSET
from service.runs.inputs import require_storable


class Body(BaseModel):
    """A body; null stands for a field that is left out, as LangGraph's clients send it."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return drop_nulls(require_storable(value))


class Page(Body):
    """A part of a list."""

    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)


Metadata = dict[str, JsonValue]


class AssistantCreate(Body):
    """An assistant to create."""

    graph_id: str = Field(max_length=200)
    assistant_id: UUID | None = None
    name: str = Field("Untitled", max_length=500)
    description: str | None = Field(None, max_length=10_000)
    config: ConfigBody = Field(default_factory=ConfigBody)
    context: dict[str, JsonValue] = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=dict)
    if_exists: Literal["raise", "do_nothing"] = "raise"


class AssistantPatch(Body):
    """A change of an assistant, which becomes a version of its own."""

    graph_id: str | None = Field(None, max_length=200)
    name: str | None = Field(None, max_length=500)
    description: str | None = Field(None, max_length=10_000)
    config: ConfigBody | None = None
    context: dict[str, JsonValue] | None = None
    metadata: Metadata | None = None


class AssistantCount(Body):
    """Which assistants."""

    metadata: Metadata = Field(default_factory=dict)
    graph_id: str | None = Field(None, max_length=200)
    name: str | None = Field(None, max_length=500, description="A part of the name")


class AssistantSearch(AssistantCount, Page):
    """Which assistants, and how they are listed."""

    sort_by: Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[str] | None = None


class VersionSearch(Page):
    """Which versions of an assistant."""

    metadata: Metadata = Field(default_factory=dict)


class VersionChoice(Body):
    """The version that runs are to use."""

    version: int = Field(ge=1, le=2**31 - 1)


class TimeToLive(Body):
    """When a thread is deleted, or its history (`keep_latest`)."""

    ttl: float = Field(gt=0, le=10**8, description="Minutes after its last change")
    strategy: Literal["delete", "keep_latest"] = "delete"


def read_ttl(value: Any) -> Any:
    """Take a number for minutes."""
    return {"ttl": value} if isinstance(value, int | float) else value


Ttl = Annotated[TimeToLive | None, BeforeValidator(read_ttl)]


class UpdateBody(Body):
    """Values or a command in a node's name."""

    values: dict[str, Any] | list[dict[str, Any]] | None = None
    command: CommandBody | None = None
    as_node: str = Field(max_length=200)


class SuperstepBody(Body):
    """Changes that are written at once."""

    updates: list[UpdateBody] = Field(min_length=1, max_length=1_000)


class ThreadCreate(Body):
    """A thread to create."""

    thread_id: UUID | None = None
    metadata: Metadata = Field(default_factory=dict)
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: Ttl = None
    supersteps: list[SuperstepBody] = Field(
        default_factory=list, max_length=1_000, description="Changes of its state; needs metadata.graph_id"
    )


class ThreadPatch(Body):
    """A change of a thread; metadata is merged."""

    metadata: Metadata = Field(default_factory=dict)
    ttl: Ttl = None


class ThreadCount(Body):
    """Which threads."""

    metadata: Metadata = Field(default_factory=dict)
    values: dict[str, JsonValue] | None = Field(
        None, description="Values that the state holds: texts, numbers, true, false or null"
    )
    status: Literal["idle", "busy", "interrupted", "error"] | None = None


class ThreadSearch(ThreadCount, Page):
    """Which threads, and how they are listed."""

    ids: list[UUID] | None = Field(None, max_length=MAX_LIMIT)
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[str] | None = None
    extract: dict[str, str] | None = Field(None, max_length=10)


class ThreadView(BaseModel):
    """A thread."""

    thread_id: str
    created_at: datetime
    updated_at: datetime
    metadata: Metadata
    status: Literal["idle", "busy", "interrupted", "error"]
    values: dict[str, JsonValue] | None
    interrupts: dict[str, list[JsonValue]]


class StateWrite(Body):
    """A change of a thread's state."""

    values: dict[str, Any] | list[dict[str, Any]] | None = None
    as_node: str | None = Field(None, max_length=200)
    checkpoint: CheckpointBody | None = None
    checkpoint_id: str | None = Field(None, max_length=100)


class StateRead(Body):
    """The checkpoint whose state is read."""

    checkpoint: CheckpointBody
    subgraphs: bool = False
    select: list[str] | None = None


class HistorySearch(Body):
    """Which states of a thread."""

    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    before: str | dict[str, Any] | None = Field(None, description="A checkpoint, its id or its config")
    metadata: Metadata = Field(default_factory=dict)
    checkpoint: CheckpointBody | None = None
    select: list[str] | None = None

    @property
    def before_id(self) -> str | None:
        """The id of the checkpoint before which to begin."""
        if not isinstance(self.before, dict):
            return self.before
        found = self.before.get("configurable", self.before)
        return str(found["checkpoint_id"]) if isinstance(found, dict) and found.get("checkpoint_id") else None


class Prune(Body):
    """Threads to erase, or whose history to shorten."""

    thread_ids: list[UUID] = Field(max_length=MAX_LIMIT)
    strategy: Literal["delete", "keep_latest"] = "delete"
