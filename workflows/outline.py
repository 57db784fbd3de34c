"""Where the steps of a definition are, and what is around them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from workflows.conditions import condition_paths
from workflows.definition.conditions import Condition
from workflows.definition.patterns import (
    Conditional,
    FanOutFanIn,
    Loop,
    Parallel,
    Sequential,
    Step,
)
from workflows.definition.workflow import Definition
from workflows.expressions import Path
from workflows.fields import references

PATTERNS: Final = (Sequential, Parallel, Conditional, Loop, FanOutFanIn)
# A field of a step and what it refers to.
Reference: TypeAlias = tuple[str, Path]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step is.

    Attributes:
        step: It.
        path: Its place in the definition, ``steps.2.then.0``.
        around: The patterns it is in with the field of each that leads to it, outermost first.
        turns: Ids of the loops and ``for_each`` around it, outermost first.
        position: In the list it is in.
    """

    step: Step
    path: str
    around: tuple[tuple[str, str], ...]
    turns: tuple[str, ...]
    position: int

    @property
    def parent(self) -> str:
        """Id of the pattern it is in; empty: the workflow itself."""
        return self.around[-1][0] if self.around else ""


Outline: TypeAlias = Mapping[str, Place]


def children(step: Step) -> list[tuple[str, Sequence[Step]]]:
    """The lists of steps a pattern has, with their fields' names."""
    match step:
        case Sequential() | Parallel() | Loop():
            return [("steps", step.steps)]
        case Conditional():
            return [("then", step.then), ("otherwise", step.otherwise)]
        case FanOutFanIn():
            return [("fan_out_steps", step.fan_out_steps), ("fan_in_steps", step.fan_in_steps)]
        case _:
            return []


def is_pattern(step: Step) -> bool:
    """Whether it is made of steps."""
    return isinstance(step, PATTERNS)


def places(definition: Definition) -> Iterator[Place]:
    """Every step in the order it is written, also those with the same id."""
    yield from _places(definition.steps, "steps", (), ())


def outline(definition: Definition) -> Outline:
    """Every step by its id."""
    return {place.step.id: place for place in places(definition)}


def _places(
    steps: Sequence[Step], path: str, around: tuple[tuple[str, str], ...], turns: tuple[str, ...]
) -> Iterator[Place]:
    for position, step in enumerate(steps):
        here = f"{path}.{position}"
        yield Place(step, here, around, turns, position)
        for field, inner in children(step):
            within = (*turns, step.id) if _turns(step, field) else turns
            yield from _places(inner, f"{here}.{field}", (*around, (step.id, field)), within)


def _turns(step: Step, field: str) -> bool:
    """Whether the steps in the field run once for each turn."""
    return isinstance(step, Loop) or (
        isinstance(step, FanOutFanIn) and bool(step.for_each) and field == "fan_out_steps"
    )


def conditions(step: Step) -> Iterator[tuple[str, Condition]]:
    """The conditions of a step, with their fields' names."""
    yield "when", step.when
    if isinstance(step, Conditional):
        yield "condition", step.condition
    if isinstance(step, Loop) and step.break_condition is not None:
        yield "break_condition", step.break_condition


def step_references(step: Step) -> list[Reference]:
    """What a step itself refers to, its conditions included; not what the steps in it do."""
    found = list(references(step))
    for field, condition in conditions(step):
        found += [(field, path) for path in condition_paths(condition)]
    return found


def referred_steps(found: Iterable[Reference]) -> frozenset[str]:
    """Ids of the steps that are referred to."""
    return frozenset(path[1] for _, path in found if path[0] == "steps" and len(path) > 1)


def loops_and_items(place: Place, field: str) -> tuple[str, ...]:
    """Ids of the loops and ``for_each`` around a field: a loop looks at its break condition inside it."""
    return (*place.turns, place.step.id) if field == "break_condition" else place.turns
