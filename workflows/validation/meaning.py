"""What fits the schema and makes no sense."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from workflows.definition.conditions import IterationLimit
from workflows.definition.patterns import Loop
from workflows.definition.workflow import Definition, InputType
from workflows.outline import Outline, conditions, loops_and_items, outline, places
from workflows.validation.faults import Fault
from workflows.validation.references import reference_faults, workflow_call_faults
from workflows.validation.sizes import size_faults

_TYPES: Final[dict[InputType, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def meaning_faults(definition: Definition) -> list[Fault]:
    """Duplicate ids, references, sizes and defaults."""
    found = list(_duplicates(definition))
    known = outline(definition)
    found += size_faults(definition, known)
    found += reference_faults(definition, known)
    found += workflow_call_faults(known)
    found += _limits_outside_loops(known)
    found += _defaults(definition)
    return sorted(set(found))


def is_of_type(value: JsonValue, kind: InputType) -> bool:
    """Whether a value is of an input's type; true is not a number here."""
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _duplicates(definition: Definition) -> Iterator[Fault]:
    paths: dict[str, list[str]] = defaultdict(list)
    for place in places(definition):
        paths[place.step.id].append(place.path)
    for step_id, found in paths.items():
        for path in found[1:]:
            yield Fault(f"{path}.id", step_id, "id", f"{step_id!r} is the id of {found[0]} too")


def _limits_outside_loops(known: Outline) -> Iterator[Fault]:
    for place in known.values():
        for field, condition in conditions(place.step):
            inside = any(isinstance(known[turn].step, Loop) for turn in loops_and_items(place, field))
            if isinstance(condition, IterationLimit) and not inside:
                yield Fault(f"{place.path}.{field}", place.step.id, field, "iteration_limit is for loops")


def _defaults(definition: Definition) -> Iterator[Fault]:
    for name, declared in definition.inputs.items():
        path = f"inputs.{name}.default"
        if declared.default is None:
            continue
        if declared.required:
            yield Fault(path, "", path, "a required input has no default; say required: false")
        elif not is_of_type(declared.default, declared.type):
            yield Fault(path, "", path, f"must be of type {declared.type}")
