"""A workflow as data."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from workflows.definition.base import StepId
from workflows.definition.patterns import Steps
from workflows.fields import TemplateJson

InputType: TypeAlias = Literal["string", "integer", "number", "boolean", "array", "object"]


class Input(BaseModel):
    """A value the workflow is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: InputType
    description: str = Field("", max_length=1_000)
    required: bool = True
    default: JsonValue = Field(None, description="Where it is not required; of its type, or null")


class Limits(BaseModel):
    """What a run may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_parallel: int = Field(
        1_000, ge=1, le=10_000, description="Working steps of this workflow that run at once"
    )
    max_steps: int = Field(
        100_000, ge=1, le=1_000_000, description="Working steps a run may come to, by its bounds"
    )


class Definition(BaseModel):
    """A workflow: steps one after the other, each of which may be a pattern of more."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Workflow")

    name: StepId
    description: str = Field("", max_length=2_000)
    version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+-]{1,40}$")] = "1"
    inputs: Annotated[dict[StepId, Input], Field(max_length=50)] = {}
    limits: Limits = Limits()
    priority: int = Field(0, ge=-100, le=100, description="Higher is first, where scheduling is by priority")
    steps: Steps
    result: TemplateJson = Field(None, description="What the run answers; null: the last step's output")


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a definition."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Definition.model_json_schema()}
