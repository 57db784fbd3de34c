"""Read a definition, and tell everything that is wrong with it."""

from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from core.errors import InvalidDefinition
from workflows.definition.workflow import Definition
from workflows.validation.faults import Fault
from workflows.validation.meaning import is_of_type, meaning_faults
from workflows.validation.mending import hidden, mended
from workflows.validation.shape import shape_faults, size_fault


def read_definition(given: JsonValue) -> Definition:
    """A definition that can be compiled.

    Raises:
        InvalidDefinition: It has faults; ``details["faults"]`` lists all of them.
    """
    if fault := size_fault(given):
        raise refused([fault])
    try:
        definition = Definition.model_validate(given)
    except ValidationError as error:
        rest = mended(given, error)
        others = [fault for fault in meaning_faults(rest) if not hidden(fault)] if rest else []
        raise refused(sorted({*shape_faults(given, error), *others})) from None
    if faults := meaning_faults(definition):
        raise refused(faults)
    return definition


def read_input(definition: Definition, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A run's input with the defaults in it.

    Raises:
        InvalidDefinition: It does not fit the definition's ``inputs``; ``details["faults"]`` lists why.
    """
    faults = [
        Fault(f"input.{name}", "", name, "is not an input of this workflow")
        for name in given.keys() - definition.inputs.keys()
    ]
    read: dict[str, JsonValue] = {}
    for name, declared in definition.inputs.items():
        value = given.get(name, declared.default)
        if name not in given and declared.required:
            faults.append(Fault(f"input.{name}", "", name, "is missing"))
        elif value is not None and not is_of_type(value, declared.type):
            faults.append(Fault(f"input.{name}", "", name, f"must be of type {declared.type}"))
        elif value is None and declared.required:
            faults.append(Fault(f"input.{name}", "", name, "is null"))
        read[name] = value
    if faults:
        raise refused(sorted(faults))
    return read


def refused(faults: list[Fault]) -> InvalidDefinition:
    """The error that tells all of them."""
    first = faults[0]
    where = f"{first.path}: " if first.path else ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidDefinition(
        f"{where}{first.message}{more}", details={"faults": [fault.as_json() for fault in faults]}
    )
