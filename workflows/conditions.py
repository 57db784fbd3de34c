"""Conditions: what a workflow can decide by, and their evaluation."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from workflows.expressions import Expression, Path, Requirement, is_true
from workflows.templates import ExpressionText

_KEY: Final = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
ContextKey: TypeAlias = Annotated[str, StringConstraints(pattern=_KEY, max_length=200)]


class _Condition(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AlwaysTrue(_Condition):
    """Is always met."""

    type: Literal["always_true"]


class ContextKeyExists(_Condition):
    """Is met when the context has a value at the key that is not null."""

    type: Literal["context_key_exists"]
    key: ContextKey = Field(description="A path, e.g. input.customer or steps.fetch.output.body")


class IterationLimit(_Condition):
    """Is met from that iteration of the innermost loop on; iterations count from 1."""

    type: Literal["iteration_limit"]
    limit: int = Field(ge=1, le=10_000)


class ExpressionCondition(_Condition):
    """Is met when the expression is true in JMESPath: not null, not false and not empty."""

    type: Literal["expression"]
    expression: ExpressionText


Condition: TypeAlias = Annotated[
    AlwaysTrue | ContextKeyExists | IterationLimit | ExpressionCondition, Field(discriminator="type")
]
ALWAYS: Final = AlwaysTrue(type="always_true")


def is_met(condition: Condition, context: Mapping[str, JsonValue]) -> bool:
    """Tell whether a condition is met in a context.

    Raises:
        StepFailed: Its expression cannot be evaluated.
    """
    match condition:
        case AlwaysTrue():
            return True
        case ContextKeyExists():
            return _get_value(context, condition.key) is not None
        case IterationLimit():
            iteration = context.get("iteration")
            return isinstance(iteration, int) and iteration >= condition.limit
        case ExpressionCondition():
            return is_true(Expression.parse(condition.expression).evaluate(context))


def list_condition_paths(condition: Condition) -> list[Path]:
    """Return the paths of the context that a condition reads."""
    match condition:
        case AlwaysTrue():
            return []
        case ContextKeyExists():
            return [tuple(condition.key.split("."))]
        case IterationLimit():
            return [("iteration",)]
        case ExpressionCondition():
            return sorted(Expression.parse(condition.expression).list_paths())


def list_condition_requirements(condition: Condition) -> frozenset[Requirement]:
    """Return what must hold of the context wherever a condition is met."""
    if isinstance(condition, ExpressionCondition):
        return Expression.parse(condition.expression).list_requirements()
    return frozenset()


def _get_value(context: Mapping[str, JsonValue], key: str) -> JsonValue:
    value: JsonValue = dict(context)
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
