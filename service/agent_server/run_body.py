"""The body with which the Agent Server API is asked for a run, as clients send it and crons keep it."""

from typing import Any, Final, Literal, TypeAlias

from langgraph.types import StreamMode
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from service.runs.inputs import require_storable
from service.runs.request import MultitaskStrategy

ApiStreamMode: TypeAlias = Literal[
    "values",
    "messages",
    "messages-tuple",
    "updates",
    "events",
    "tasks",
    "checkpoints",
    "debug",
    "custom",
]
Nodes: TypeAlias = list[str] | Literal["*"]

# LangGraph's stream modes for the API's. ``values`` is always among them, as the result is made of it.
STREAM_MODES: Final[dict[str, StreamMode]] = {
    "values": "values",
    "messages": "messages",
    "messages-tuple": "messages",
    "updates": "updates",
    "tasks": "tasks",
    "checkpoints": "checkpoints",
    "debug": "debug",
    "custom": "custom",
}


def drop_nulls(value: Any) -> Any:
    """Return an object without its fields that are null."""
    if not isinstance(value, dict):
        return value
    return {name: each for name, each in value.items() if each is not None}


class SendBody(BaseModel):
    """A node to go to, with an input of its own."""

    model_config = ConfigDict(extra="forbid")

    node: str
    input: JsonValue = None


class CommandBody(BaseModel):
    """An answer to interrupts, a change of the state, or the nodes to go to."""

    model_config = ConfigDict(extra="forbid")

    update: dict[str, Any] | list[tuple[str, Any]] | None = None
    resume: JsonValue = None
    goto: str | SendBody | list[str | SendBody] | None = None


class ConfigBody(BaseModel):
    """A LangChain config; ``configurable`` holds fields of the graph's context, or names a checkpoint."""

    model_config = ConfigDict(extra="forbid")

    tags: list[str] = Field(default_factory=list)
    recursion_limit: int | None = Field(None, ge=1)
    configurable: dict[str, JsonValue] = Field(default_factory=dict)
    metadata: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return drop_nulls(value)


class CheckpointBody(BaseModel):
    """A checkpoint of the thread."""

    model_config = ConfigDict(extra="forbid")

    thread_id: str | None = None
    checkpoint_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: dict[str, JsonValue] | None = None


class RunBody(BaseModel):
    """A run to create. Fields that have no effect here are refused."""

    model_config = ConfigDict(extra="forbid")

    assistant_id: str = Field(max_length=200, description="The id of an assistant, or the name of a graph")
    input: JsonValue = None
    command: CommandBody | None = None
    config: ConfigBody = Field(default_factory=ConfigBody)
    context: dict[str, JsonValue] | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    stream_mode: list[ApiStreamMode] = ["values"]
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    checkpoint: CheckpointBody | None = None
    checkpoint_id: str | None = None
    checkpoint_during: bool | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    multitask_strategy: MultitaskStrategy = "enqueue"
    if_not_exists: Literal["create", "reject"] = "reject"
    on_disconnect: Literal["cancel", "continue"] = "continue"
    on_completion: Literal["delete", "keep"] = "delete"
    after_seconds: float = Field(0, ge=0, le=366 * 24 * 3_600)
    webhook: str | None = Field(
        None, max_length=2_000, description="Told of the run's end, as the webhooks at /v1/webhooks are"
    )
    feedback_keys: list[str] = Field(default_factory=list, max_length=0, description="Needs LangSmith")
    langsmith_tracer: None = Field(None, description="Tracing is a setting of the service")
    strict_resume: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        """Take null for "not given", as LangGraph's clients send it."""
        return drop_nulls(require_storable(value))

    @field_validator("stream_mode", mode="before")
    @classmethod
    def _list_modes(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stream_mode")
    @classmethod
    def _check_modes(cls, value: list[str]) -> list[str]:
        if "events" in value:
            raise ValueError("'events' is not supported; use 'messages-tuple', 'updates' or 'tasks'")
        return value

    @property
    def modes(self) -> tuple[StreamMode, ...]:
        """LangGraph's stream modes; ``updates`` hold the questions."""
        return tuple(dict.fromkeys([*(STREAM_MODES[mode] for mode in self.stream_mode), "values", "updates"]))
