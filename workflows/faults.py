"""Faults of a definition, and those among them that its schema finds.

Pydantic's errors become faults in the terms of the definition. To find all other faults in the same pass, a
definition that does not fit the schema is repaired with placeholders for what does not fit.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import JsonValue, ValidationError

from workflows.json_values import iter_levels
from workflows.schema import Definition

MAX_FAULTS: Final = 200
# Deeper than any pattern may be nested, and far from the limit of Python's stack.
MAX_DOCUMENT_DEPTH: Final = 100
MAX_DOCUMENT_VALUES: Final = 500_000

_REPAIR_ROUNDS: Final = 5
_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "is not a field here",
    "union_tag_not_found": "needs a type",
}
_STEP_LISTS: Final = frozenset({"steps", "then", "otherwise", "fan_out_steps", "fan_in_steps"})
_PATTERN_TYPES: Final = frozenset({"sequential", "parallel", "conditional", "loop", "fan_out_fan_in"})
_PLACEHOLDER: Final[Mapping[str, JsonValue]] = {
    "id": "placeholder",
    "type": "data_processing",
    "operation": "count",
    "source": "[]",
}
# Placeholders of required fields; optional fields are left out.
_REQUIRED_FIELDS: Final[Mapping[str, JsonValue]] = {
    "name": "placeholder",
    "max_iterations": 1,
    "condition": {"type": "always_true"},
    "steps": [dict(_PLACEHOLDER)],
    "then": [dict(_PLACEHOLDER)],
    "fan_out_steps": [dict(_PLACEHOLDER)],
}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something wrong with a definition.

    Attributes:
        path: Its place, such as ``steps.2.then.0.url``; empty: the definition itself.
        step: The id of the step it is in; empty: none.
        field: The field of the step or of the definition.
        message: What is wrong and what to do.
    """

    path: str
    step: str
    field: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the fault as an error body lists it."""
        return asdict(self)


def find_size_fault(document: JsonValue) -> Fault | None:
    """Return what is wrong with the size of a document that is not validated yet."""
    values = 0
    for depth, level in enumerate(iter_levels(document), start=1):
        values += len(level)
        if depth > MAX_DOCUMENT_DEPTH or values > MAX_DOCUMENT_VALUES:
            limits = f"{MAX_DOCUMENT_DEPTH} levels or has more than {MAX_DOCUMENT_VALUES} values"
            return Fault("", "", "", f"is nested deeper than {limits}")
    return None


def list_schema_faults(document: JsonValue, error: ValidationError) -> list[Fault]:
    """Return pydantic's errors as faults, at most :data:`MAX_FAULTS` of them."""
    errors = error.errors(include_url=False, include_input=False)
    faults = sorted({_to_fault(document, one) for one in errors[:MAX_FAULTS]})
    if len(errors) > MAX_FAULTS:
        faults.append(Fault("", "", "", f"and {len(errors) - MAX_FAULTS} more"))
    return faults


def repair_definition(document: JsonValue, error: ValidationError) -> Definition | None:
    """Return the definition with placeholders for what the error is about; None: it cannot be repaired."""
    if not isinstance(document, dict):
        return None
    draft = copy.deepcopy(document)
    for _ in range(_REPAIR_ROUNDS):
        # The innermost first, so that a path still exists when its turn comes.
        paths = {tuple(_iter_document_path(draft, one["loc"])) for one in error.errors(include_url=False)}
        for path in sorted(paths, key=len, reverse=True):
            _repair(draft, path)
        try:
            return Definition.model_validate(draft)
        except ValidationError as next_error:
            error = next_error
    return None


def is_about_placeholder(fault: Fault) -> bool:
    """Tell whether a fault of a repaired definition is one of a placeholder."""
    return fault.step == _PLACEHOLDER["id"]


def _to_fault(document: JsonValue, error: Mapping[str, Any]) -> Fault:
    path = list(_iter_document_path(document, error["loc"]))
    step, field = _find_step_and_field(document, path)
    return Fault(".".join(str(part) for part in path), step, field, _build_message(error))


def _iter_document_path(document: JsonValue, loc: tuple[int | str, ...]) -> Iterator[int | str]:
    """Yield the parts of pydantic's location that are in the document; pydantic adds the tags of unions."""
    value = document
    for at, part in enumerate(loc):
        if isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
            value = value[part]
        elif isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, dict) and (at < len(loc) - 1 or part == value.get("type")):
            # The type of a step or a condition, or the name of the class that pydantic tried.
            continue
        elif not isinstance(value, dict):
            return
        yield part


def _find_step_and_field(document: JsonValue, path: list[int | str]) -> tuple[str, str]:
    """Return the id of the innermost step on a path, and the rest of the path inside it."""
    step, rest = "", path
    value = document
    for at, part in enumerate(path):
        if isinstance(value, list) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        else:
            value = value.get(str(part)) if isinstance(value, dict) else None
        if at and path[at - 1] in _STEP_LISTS and isinstance(value, dict):
            step, rest = str(value.get("id") or ""), path[at + 1 :]
    return step, ".".join(str(part) for part in rest)


def _build_message(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    if kind in _MESSAGES:
        return _MESSAGES[kind]
    if kind == "union_tag_invalid":
        return f"type is {context['tag']!r}; it may be {context['expected_tags']}"
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    message: str = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _repair(draft: dict[str, JsonValue], path: Sequence[int | str]) -> None:
    """Put a placeholder in place of the innermost step on the path, or of one field of a pattern."""
    value: Any = draft
    innermost: tuple[Any, int] | None = None
    rest: Sequence[int | str] = ()
    for at, part in enumerate(path):
        if isinstance(value, list) and isinstance(part, int) and part < len(value):
            innermost, rest = (value, part), path[at + 1 :]
        elif not (isinstance(value, dict) and part in value):
            break
        value = value[part]
    if innermost is None:
        _repair_field(draft, path)
        return
    steps, index = innermost
    step = steps[index]
    if isinstance(step, dict) and step.get("type") in _PATTERN_TYPES and rest:
        _repair_field(step, rest)
    else:
        keeps_id = isinstance(step, dict) and isinstance(step.get("id"), str) and rest[:1] != ["id"]
        steps[index] = {**_PLACEHOLDER, **({"id": step["id"]} if keeps_id else {})}


def _repair_field(holder: dict[str, JsonValue], path: Sequence[int | str]) -> None:
    if not path:
        return
    field = str(path[0])
    if field in _REQUIRED_FIELDS:
        holder[field] = copy.deepcopy(_REQUIRED_FIELDS[field])
    else:
        holder.pop(field, None)
