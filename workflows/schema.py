"""The schema of workflow definitions: patterns of steps, inputs, limits and the result.

Every pattern is a step itself. The patterns follow van der Aalst et al. 2003 ("Workflow Patterns"): sequence,
parallel split with synchronisation, exclusive choice, structured loop, and multiple instances with a priori
run-time knowledge.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from workflows.conditions import Condition
from workflows.steps import AgentCall, AnyStep, ApiCall, Approval, DatabaseQuery, DataProcessing, StepId, Wait
from workflows.templates import ExpressionText, TemplateJson

MAX_PARALLEL: Final = 10_000
MAX_ITERATIONS: Final = 10_000
_MAX_SEQUENCE: Final = 1_000

InputType: TypeAlias = Literal["string", "integer", "number", "boolean", "array", "object"]


class PatternStep(AnyStep):
    """Fields of every pattern."""

    on_error: Literal["fail", "skip"] = Field(
        "fail", description="skip: a failure inside ends the pattern and the workflow continues"
    )


class Sequential(PatternStep):
    """Run steps one after the other."""

    type: Literal["sequential"]
    steps: "Steps"


class Parallel(PatternStep):
    """Run all steps at the same time and wait for all of them. Output: their outputs by step id."""

    type: Literal["parallel"]
    steps: Annotated[list["Step"], Field(min_length=1, max_length=MAX_PARALLEL)]


class Conditional(PatternStep):
    """Run one branch or the other. Output: ``{branch}``, which is ``then`` or ``otherwise``."""

    type: Literal["conditional"]
    condition: Condition
    then: "Steps"
    otherwise: list["Step"] = Field([], max_length=_MAX_SEQUENCE)


class Loop(PatternStep):
    """Repeat the steps. Output: ``{iterations}``."""

    type: Literal["loop"]
    steps: "Steps"
    max_iterations: int = Field(ge=1, le=MAX_ITERATIONS)
    break_condition: Condition | None = Field(
        None, description="Checked after each iteration; null: run all iterations"
    )


class FanOutFanIn(PatternStep):
    """Run steps at the same time, then process their results.

    Without ``for_each``, the fan-out steps run in parallel and the output has their outputs by step id. With
    ``for_each``, they run one after the other for each item of the list, all items in parallel, and the
    output is the list of the last step's outputs, null where an item failed. The fan-in steps read it as
    ``steps.<id>.output``.
    """

    type: Literal["fan_out_fan_in"]
    for_each: ExpressionText = Field(
        "", description="A list of the context; the steps see item and index. Empty: the steps run once"
    )
    max_items: int = Field(1_000, ge=1, le=MAX_PARALLEL, description="The step fails when the list is longer")
    fan_out_steps: Annotated[list["Step"], Field(min_length=1, max_length=MAX_PARALLEL)]
    fan_in_steps: list["Step"] = Field([], max_length=_MAX_SEQUENCE)


PATTERNS: Final = (Sequential, Parallel, Conditional, Loop, FanOutFanIn)
Pattern: TypeAlias = Sequential | Parallel | Conditional | Loop | FanOutFanIn
Step: TypeAlias = Annotated[
    Pattern | ApiCall | DatabaseQuery | DataProcessing | AgentCall | Wait | Approval,
    Field(discriminator="type"),
]
Steps: TypeAlias = Annotated[list[Step], Field(min_length=1, max_length=_MAX_SEQUENCE)]

for _pattern in PATTERNS:
    _pattern.model_rebuild()


class Input(BaseModel):
    """An input value of the workflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: InputType
    description: str = Field("", max_length=1_000)
    required: bool = True
    default: JsonValue = Field(None, description="Of an optional input; of the input's type, or null")


class Limits(BaseModel):
    """Limits of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_parallel: int = Field(1_000, ge=1, le=10_000, description="Working steps of a run that run at once")
    max_steps: int = Field(
        100_000, ge=1, le=1_000_000, description="Working steps a run may execute at most, by its bounds"
    )


class Definition(BaseModel):
    """A workflow: steps that run one after the other, each of which may be a pattern of further steps."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Workflow")

    name: StepId
    description: str = Field("", max_length=2_000)
    version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+-]{1,40}$")] = "1"
    inputs: Annotated[dict[StepId, Input], Field(max_length=50)] = {}
    limits: Limits = Limits()
    priority: int = Field(0, ge=-100, le=100, description="Higher runs first, when scheduling is by priority")
    steps: Steps
    result: TemplateJson = Field(None, description="The result of the run; null: the last step's output")

    def to_json(self) -> dict[str, JsonValue]:
        """Return the definition as JSON, without fields that have their defaults."""
        return self.model_dump(mode="json", exclude_unset=True)


def build_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a definition."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Definition.model_json_schema()}
