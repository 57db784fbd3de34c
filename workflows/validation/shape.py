"""What does not fit the schema, in the words of the definition and not of the library that checked it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import JsonValue, ValidationError

from workflows.validation.faults import Fault

MOST_FAULTS: Final = 200
# Deeper than any pattern may be nested, and far from where Python's stack ends.
DEEPEST: Final = 100
MOST_VALUES: Final = 500_000

_WORDS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "is not a field here",
    "union_tag_not_found": "needs a type",
}


def shape_faults(given: JsonValue, error: ValidationError) -> list[Fault]:
    """Pydantic's errors as faults; the first :data:`MOST_FAULTS`."""
    found = error.errors(include_url=False, include_input=False)
    faults = sorted({_fault(given, one) for one in found[:MOST_FAULTS]})
    if len(found) > MOST_FAULTS:
        faults.append(Fault("", "", "", f"and {len(found) - MOST_FAULTS} more"))
    return faults


def size_fault(given: JsonValue) -> Fault | None:
    """What is wrong with the size of something that is not read yet."""
    level: list[JsonValue] = [given]
    values = depth = 0
    while level:
        depth, values = depth + 1, values + len(level)
        if depth > DEEPEST or values > MOST_VALUES:
            return Fault(
                "", "", "", f"is nested deeper than {DEEPEST} levels or has more than {MOST_VALUES} values"
            )
        level = [child for one in level for child in _children(one)]
    return None


def _children(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _fault(given: JsonValue, error: Mapping[str, Any]) -> Fault:
    path = list(written_path(given, error["loc"]))
    step, field = _step_and_field(given, path)
    return Fault(".".join(str(part) for part in path), step, field, _message(error))


def written_path(given: JsonValue, loc: tuple[int | str, ...]) -> Iterator[int | str]:
    """The parts of a place that are in the definition; pydantic adds the tags of unions."""
    value = given
    for at, part in enumerate(loc):
        if isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
            value = value[part]
        elif isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, dict) and (at < len(loc) - 1 or part == value.get("type")):
            # The type of a step or a condition, or the name of the class that was tried.
            continue
        elif not isinstance(value, dict):
            return
        yield part


def _step_and_field(given: JsonValue, path: list[int | str]) -> tuple[str, str]:
    """The innermost step on a path, and what of it is meant."""
    step, rest = "", path
    value = given
    for at, part in enumerate(path):
        value = _inside(value, part)
        if at and path[at - 1] in _STEPS and isinstance(value, dict):
            step, rest = str(value.get("id") or ""), path[at + 1 :]
    return step, ".".join(str(part) for part in rest)


_STEPS: Final = frozenset({"steps", "then", "otherwise", "fan_out_steps", "fan_in_steps"})


def _inside(value: JsonValue, part: int | str) -> JsonValue:
    if isinstance(value, list) and isinstance(part, int):
        return value[part] if part < len(value) else None
    return value.get(str(part)) if isinstance(value, dict) else None


def _message(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "union_tag_invalid":
        return f"type is {context['tag']!r}; it may be {context['expected_tags']}"
    if kind == "string_pattern_mismatch":
        return f"must look like {context['pattern']}"
    message: str = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
