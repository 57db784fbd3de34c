"""Whether a condition holds, and what it looks at."""

from collections.abc import Mapping

from pydantic import JsonValue

from workflows.definition.conditions import AlwaysTrue, Condition, ContextKeyExists, IterationLimit, WhereTrue
from workflows.expressions import Expression, Path, is_true


def holds(condition: Condition, context: Mapping[str, JsonValue]) -> bool:
    """Whether it holds in a context.

    Raises:
        StepFailed: Its expression cannot be evaluated.
    """
    match condition:
        case AlwaysTrue():
            return True
        case ContextKeyExists():
            return _at(context, condition.key) is not None
        case IterationLimit():
            iteration = context.get("iteration")
            return isinstance(iteration, int) and iteration >= condition.limit
        case WhereTrue():
            return is_true(Expression.parse(condition.expression).evaluate(context))


def condition_paths(condition: Condition) -> list[Path]:
    """What it refers to."""
    match condition:
        case AlwaysTrue():
            return []
        case ContextKeyExists():
            return [tuple(condition.key.split("."))]
        case IterationLimit():
            return [("iteration",)]
        case WhereTrue():
            return sorted(Expression.parse(condition.expression).paths())


def _at(context: Mapping[str, JsonValue], key: str) -> JsonValue:
    found: JsonValue = dict(context)
    for name in key.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found
