"""The outline of a definition: where each step is, and the patterns around it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from workflows.conditions import Condition, list_condition_paths
from workflows.expressions import Path
from workflows.schema import PATTERNS, Conditional, Definition, FanOutFanIn, Loop, Parallel, Sequential, Step
from workflows.templates import list_field_paths

# A field of a step, and a path of the context that it reads.
Reference: TypeAlias = tuple[str, Path]


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    """Where a step is in its definition.

    Attributes:
        step: The step.
        path: Its path in the definition, such as ``steps.2.then.0``.
        ancestors: Ids of the patterns around it, each with the field that leads to it, outermost first.
        repeaters: Ids of the loops and ``for_each`` patterns that repeat it, outermost first.
        position: Its position in the list that holds it.
    """

    step: Step
    path: str
    ancestors: tuple[tuple[str, str], ...]
    repeaters: tuple[str, ...]
    position: int


Outline: TypeAlias = Mapping[str, OutlineEntry]


def build_outline(definition: Definition) -> Outline:
    """Return every step of a definition by its id."""
    return {entry.step.id: entry for entry in iter_steps(definition)}


def iter_steps(definition: Definition) -> Iterator[OutlineEntry]:
    """Yield every step in the order of the definition, including steps that share an id."""
    yield from _iter_steps(definition.steps, "steps", (), ())


def is_pattern(step: Step) -> bool:
    """Tell whether a step is a pattern of further steps."""
    return isinstance(step, PATTERNS)


def list_children(step: Step) -> list[tuple[str, Sequence[Step]]]:
    """Return the lists of steps that a pattern holds, with their fields; empty for a working step."""
    match step:
        case Sequential() | Parallel() | Loop():
            return [("steps", step.steps)]
        case Conditional():
            return [("then", step.then), ("otherwise", step.otherwise)]
        case FanOutFanIn():
            return [("fan_out_steps", step.fan_out_steps), ("fan_in_steps", step.fan_in_steps)]
        case _:
            return []


def iter_conditions(step: Step) -> Iterator[tuple[str, Condition]]:
    """Yield the conditions of a step with their fields."""
    yield "when", step.when
    if isinstance(step, Conditional):
        yield "condition", step.condition
    if isinstance(step, Loop) and step.break_condition is not None:
        yield "break_condition", step.break_condition


def list_references(step: Step) -> list[Reference]:
    """Return what a step and its conditions read of the context, without the steps inside it."""
    references = list_field_paths(step)
    for field, condition in iter_conditions(step):
        references += [(field, path) for path in list_condition_paths(condition)]
    return references


def collect_step_ids(references: Iterable[Reference]) -> frozenset[str]:
    """Return the ids of the steps that references read."""
    return frozenset(path[1] for _, path in references if path[0] == "steps" and len(path) > 1)


def find_repeaters(entry: OutlineEntry, field: str) -> tuple[str, ...]:
    """Return the repeaters around a field: a loop evaluates its break condition inside an iteration."""
    return (*entry.repeaters, entry.step.id) if field == "break_condition" else entry.repeaters


def runs_children_in_parallel(step: Step, field: str) -> bool:
    """Tell whether the steps in a pattern's field run at the same time as each other."""
    return isinstance(step, Parallel) or (
        isinstance(step, FanOutFanIn) and field == "fan_out_steps" and not step.for_each
    )


def _iter_steps(
    steps: Sequence[Step], path: str, ancestors: tuple[tuple[str, str], ...], repeaters: tuple[str, ...]
) -> Iterator[OutlineEntry]:
    for position, step in enumerate(steps):
        step_path = f"{path}.{position}"
        yield OutlineEntry(step, step_path, ancestors, repeaters, position)
        for field, children in list_children(step):
            inner = (*repeaters, step.id) if _is_repeater(step, field) else repeaters
            yield from _iter_steps(children, f"{step_path}.{field}", (*ancestors, (step.id, field)), inner)


def _is_repeater(step: Step, field: str) -> bool:
    """Tell whether a pattern repeats the steps in its field."""
    return isinstance(step, Loop) or (
        isinstance(step, FanOutFanIn) and bool(step.for_each) and field == "fan_out_steps"
    )
