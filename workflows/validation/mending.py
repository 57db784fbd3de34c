"""A definition with stand-ins for what does not fit, so that all else can be checked at the same time."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import JsonValue, ValidationError

from workflows.definition.workflow import Definition
from workflows.validation.faults import Fault
from workflows.validation.shape import written_path

_ROUNDS: Final = 5
_PATTERNS: Final = frozenset({"sequential", "parallel", "conditional", "loop", "fan_out_fan_in"})
_STAND_IN: Final[Mapping[str, JsonValue]] = {
    "id": "stand_in",
    "type": "data_processing",
    "operation": "count",
    "source": "[]",
}
# What stands in for a field that must be there; others are left out.
_FIELDS: Final[Mapping[str, JsonValue]] = {
    "name": "stand_in",
    "max_iterations": 1,
    "condition": {"type": "always_true"},
    "steps": [dict(_STAND_IN)],
    "then": [dict(_STAND_IN)],
    "fan_out_steps": [dict(_STAND_IN)],
}


def mended(given: JsonValue, error: ValidationError) -> Definition | None:
    """The definition without what the error is about; None: too little is left of it."""
    if not isinstance(given, dict):
        return None
    draft = copy.deepcopy(given)
    for _ in range(_ROUNDS):
        # The innermost first, so that a place is still there when its turn comes.
        paths = {tuple(written_path(draft, one["loc"])) for one in error.errors(include_url=False)}
        for path in sorted(paths, key=len, reverse=True):
            _mend(draft, path)
        try:
            return Definition.model_validate(draft)
        except ValidationError as next_error:
            error = next_error
    return None


def hidden(fault: Fault) -> bool:
    """Whether a fault is one of a stand-in."""
    return fault.step == _STAND_IN["id"]


def _mend(draft: dict[str, JsonValue], path: Sequence[int | str]) -> None:
    """Put a stand-in where the innermost step on the path is, or for the one field of it."""
    holder: Any = draft
    place: tuple[Any, int] | None = None
    for at, part in enumerate(path):
        if isinstance(holder, list) and isinstance(part, int) and part < len(holder):
            place, rest = (holder, part), path[at + 1 :]
        elif not (isinstance(holder, dict) and part in holder):
            break
        holder = holder[part]
    if place is None or not _is_step_list(path):
        _leave_out(draft, path)
        return
    steps, index = place
    step = steps[index]
    if isinstance(step, dict) and step.get("type") in _PATTERNS and rest:
        _leave_out(step, rest)
    else:
        known = isinstance(step, dict) and isinstance(step.get("id"), str)
        steps[index] = {**_STAND_IN, **({"id": step["id"]} if known and rest[:1] != ["id"] else {})}


def _leave_out(holder: dict[str, JsonValue], path: Sequence[int | str]) -> None:
    if not path:
        return
    field = str(path[0])
    if field in _FIELDS:
        holder[field] = copy.deepcopy(_FIELDS[field])
    else:
        holder.pop(field, None)


def _is_step_list(path: Sequence[int | str]) -> bool:
    return any(isinstance(part, int) for part in path)
