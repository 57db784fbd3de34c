"""What a workflow may decide by."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from workflows.fields import ExpressionText

ContextKey: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=200)
]


class _Condition(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AlwaysTrue(_Condition):
    """Holds."""

    type: Literal["always_true"]


class ContextKeyExists(_Condition):
    """Holds where the context has something there, and it is not null."""

    type: Literal["context_key_exists"]
    key: ContextKey = Field(description="A path, e.g. input.customer or steps.fetch.output.body")


class IterationLimit(_Condition):
    """Holds from that iteration of the innermost loop on; they count from 1."""

    type: Literal["iteration_limit"]
    limit: int = Field(ge=1, le=10_000)


class WhereTrue(_Condition):
    """Holds where the expression is true, as JMESPath says it: not null, not false and not empty."""

    type: Literal["expression"]
    expression: ExpressionText


Condition: TypeAlias = Annotated[
    AlwaysTrue | ContextKeyExists | IterationLimit | WhereTrue, Field(discriminator="type")
]
ALWAYS = AlwaysTrue(type="always_true")
