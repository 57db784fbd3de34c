"""Validation: read a definition or a run's input, and report everything that is wrong with it at once."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import JsonValue, ValidationError

from core.errors import InvalidDefinition
from workflows.customer_texts import iter_unchecked_texts
from workflows.faults import (
    Fault,
    find_size_fault,
    is_about_placeholder,
    list_schema_faults,
    repair_definition,
)
from workflows.outline import (
    Outline,
    OutlineEntry,
    build_outline,
    is_pattern,
    iter_steps,
    list_children,
    runs_children_in_parallel,
)
from workflows.references import iter_reference_faults
from workflows.schema import Conditional, Definition, FanOutFanIn, InputType, Loop, Step
from workflows.steps import AgentCall

MAX_STEPS: Final = 10_000
# Steps that are a graph node each; the working steps of one fan-out share a node.
MAX_NODES: Final = 1_000
MAX_PATTERN_DEPTH: Final = 12

_TYPES: Final[dict[InputType, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def read_definition(document: JsonValue) -> Definition:
    """Return a definition that can be compiled.

    Raises:
        InvalidDefinition: It has faults; ``details["faults"]`` lists all of them.
    """
    if fault := find_size_fault(document):
        raise build_error([fault])
    try:
        definition = Definition.model_validate(document)
    except ValidationError as error:
        repaired = repair_definition(document, error)
        others = _list_faults(repaired) if repaired else []
        others = [fault for fault in others if not is_about_placeholder(fault)]
        raise build_error(sorted({*list_schema_faults(document, error), *others})) from None
    if faults := _list_faults(definition):
        raise build_error(faults)
    return definition


def read_input(definition: Definition, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a run's input, completed with the defaults.

    Raises:
        InvalidDefinition: It does not fit the definition's ``inputs``; ``details["faults"]`` lists why.
    """
    faults = [
        Fault(f"input.{name}", "", name, "is not an input of this workflow")
        for name in values.keys() - definition.inputs.keys()
    ]
    completed: dict[str, JsonValue] = {}
    for name, declared in definition.inputs.items():
        value = values.get(name, declared.default)
        if name not in values and declared.required:
            faults.append(Fault(f"input.{name}", "", name, "is missing"))
        elif value is not None and not _is_of_type(value, declared.type):
            faults.append(Fault(f"input.{name}", "", name, f"must be of type {declared.type}"))
        elif value is None and declared.required:
            faults.append(Fault(f"input.{name}", "", name, "is null"))
        completed[name] = value
    if faults:
        raise build_error(sorted(faults))
    return completed


def build_error(faults: list[Fault]) -> InvalidDefinition:
    """Return the error that lists the faults."""
    first = faults[0]
    where = f"{first.path}: " if first.path else ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    details = {"faults": [fault.to_json() for fault in faults]}
    return InvalidDefinition(f"{where}{first.message}{more}", details=details)


def _list_faults(definition: Definition) -> list[Fault]:
    """Return the faults of a definition that fits the schema."""
    outline = build_outline(definition)
    return sorted(
        {
            *_iter_duplicate_ids(definition),
            *_iter_size_faults(definition, outline),
            *iter_reference_faults(definition, outline),
            *_iter_nested_workflows(outline),
            *iter_unchecked_texts(outline),
            *_iter_default_faults(definition),
        }
    )


def _iter_duplicate_ids(definition: Definition) -> Iterator[Fault]:
    paths: dict[str, list[str]] = defaultdict(list)
    for entry in iter_steps(definition):
        paths[entry.step.id].append(entry.path)
    for step_id, (first, *others) in paths.items():
        for path in others:
            yield Fault(f"{path}.id", step_id, "id", f"{step_id!r} is the id of {first} too")


def _iter_size_faults(definition: Definition, outline: Outline) -> Iterator[Fault]:
    """Yield too many steps, too deep nesting, and more executions than ``limits.max_steps`` allows."""
    if len(outline) > MAX_STEPS:
        yield Fault("steps", "", "steps", f"has {len(outline)} steps; the maximum is {MAX_STEPS}")
    nodes = sum(not _shares_node(outline, entry) for entry in outline.values())
    if nodes > MAX_NODES:
        message = (
            f"has {nodes} steps outside of fan-outs; the maximum is {MAX_NODES}: "
            "use a loop or a for_each to repeat steps"
        )
        yield Fault("steps", "", "steps", message)
    for entry in outline.values():
        if len(entry.ancestors) == MAX_PATTERN_DEPTH:
            yield Fault(entry.path, entry.step.id, "", f"is nested deeper than {MAX_PATTERN_DEPTH} patterns")
    executions, allowed = _count_executions(definition.steps), definition.limits.max_steps
    if executions > allowed:
        message = (
            f"the bounds of its loops and for_each come to {executions} working steps, and {allowed} are "
            "allowed; lower max_iterations or max_items or raise it"
        )
        yield Fault("limits.max_steps", "", "limits.max_steps", message)


def _shares_node(outline: Outline, entry: OutlineEntry) -> bool:
    if is_pattern(entry.step) or not entry.ancestors:
        return False
    pattern, field = entry.ancestors[-1]
    return runs_children_in_parallel(outline[pattern].step, field)


def _count_executions(steps: Sequence[Step]) -> int:
    """Return how many working steps a run of these steps may execute at most."""
    return sum(_count_step_executions(step) for step in steps)


def _count_step_executions(step: Step) -> int:
    match step:
        case Loop():
            return step.max_iterations * _count_executions(step.steps)
        case Conditional():
            return max(_count_executions(step.then), _count_executions(step.otherwise))
        case FanOutFanIn():
            repetitions = step.max_items if step.for_each else 1
            return repetitions * _count_executions(step.fan_out_steps) + _count_executions(step.fan_in_steps)
    return sum(_count_executions(children) for _, children in list_children(step)) if is_pattern(step) else 1


def _iter_nested_workflows(outline: Outline) -> Iterator[Fault]:
    """Yield steps that run the graph ``workflow``, through which a workflow could run itself."""
    for entry in outline.values():
        if isinstance(entry.step, AgentCall) and entry.step.graph == "workflow":
            message = "a workflow cannot be a step of a workflow; write its steps here"
            yield Fault(f"{entry.path}.graph", entry.step.id, "graph", message)


def _iter_default_faults(definition: Definition) -> Iterator[Fault]:
    for name, declared in definition.inputs.items():
        path = f"inputs.{name}.default"
        if declared.default is None:
            continue
        if declared.required:
            yield Fault(path, "", path, "a required input has no default; set required: false")
        elif not _is_of_type(declared.default, declared.type):
            yield Fault(path, "", path, f"must be of type {declared.type}")


def _is_of_type(value: JsonValue, kind: InputType) -> bool:
    """Tell whether a value is of an input's type; in JSON, unlike in Python, a boolean is not a number."""
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])
