"""What steps refer to: only what is declared, and what has run when they do."""

from collections.abc import Iterator
from dataclasses import dataclass

from workflows.definition.patterns import FanOutFanIn, Loop
from workflows.definition.workflow import Definition
from workflows.expressions import Path
from workflows.outline import Outline, Place, is_pattern, loops_and_items, step_references
from workflows.outline import places as places_of
from workflows.steps.data_processing import DataProcessing
from workflows.templates import Template
from workflows.validation.faults import Fault

_ROOTS = "input, steps, item, index and iteration"
# What a record is, as expressions see it.
_OF_A_STEP = frozenset({"status", "output", "error"})


def reference_faults(definition: Definition, places: Outline) -> Iterator[Fault]:
    """Unknown names, and steps that refer to themselves, to later ones or to those beside them."""
    check = _Check(definition, places)
    for place in places_of(definition):
        for field, path in step_references(place.step):
            if message := check.message(place, field, path):
                yield Fault(f"{place.path}.{field}", place.step.id, field, message)
    for path in sorted(Template(definition.result).paths()):
        if message := check.message(None, "result", path):
            yield Fault("result", "", "result", message)


@dataclass(frozen=True, slots=True)
class _Check:
    definition: Definition
    places: Outline

    def message(self, place: Place | None, field: str, path: Path) -> str:
        """What is wrong with a reference; empty: nothing."""
        root, *rest = path
        if root == "input":
            return self._input(rest)
        if root == "steps":
            return self._step(place, field, rest)
        if root in {"item", "index"}:
            return self._item(place, root)
        if root == "iteration":
            inside = place is not None and any(
                isinstance(self.places[turn].step, Loop) for turn in loops_and_items(place, field)
            )
            return "" if inside else "iteration is known inside a loop only"
        return f"{root!r} is unknown; there are {_ROOTS}"

    def _input(self, rest: list[str]) -> str:
        if not rest or rest[0] in self.definition.inputs:
            return ""
        known = ", ".join(sorted(self.definition.inputs)) or "none"
        return f"input.{rest[0]} is not declared in inputs; there are: {known}"

    def _item(self, place: Place | None, root: str) -> str:
        if place is not None and isinstance(place.step, DataProcessing):
            return ""
        inside = place is not None and any(
            isinstance(self.places[turn].step, FanOutFanIn) for turn in place.turns
        )
        return "" if inside else f"{root} is known in the fan_out_steps of a for_each only"

    def _step(self, place: Place | None, field: str, rest: list[str]) -> str:
        if not rest:
            return "steps as a whole is not known: name the step, as in steps.fetch.output"
        name = rest[0]
        if name not in self.places:
            return f"there is no step {name!r}"
        if len(rest) > 1 and rest[1] not in _OF_A_STEP:
            return f"steps.{name} has status, output and error, and no {rest[1]!r}"
        return self._order(place, field, self.places[name]) if place is not None else ""

    def _order(self, place: Place, field: str, other: Place) -> str:
        """What is wrong with when the other one runs."""
        name = other.step.id
        if name == place.step.id:
            return f"{name!r} refers to itself"
        here, there = self._lineage(place), self._lineage(other)
        if here[: len(there)] == there:
            return self._ancestor(place, other)
        if there[: len(here)] == here:
            # In the pattern that looks: a loop's break condition comes after its steps, all else before.
            return "" if field == "break_condition" else f"{name!r} runs later"
        at = next(at for at, (one, another) in enumerate(zip(here, there, strict=False)) if one != another)
        return self._beside(here[at], there[at], name)

    def _lineage(self, place: Place) -> list[tuple[str, str, int]]:
        """For each level the pattern, its field and the position in it."""
        lineage = []
        for at, (pattern, field) in enumerate(place.around):
            inner = place.around[at + 1][0] if at + 1 < len(place.around) else place.step.id
            lineage.append((pattern, field, self.places[inner].position))
        first = place.around[0][0] if place.around else place.step.id
        return [("", "steps", self.places[first].position), *lineage]

    def _ancestor(self, place: Place, other: Place) -> str:
        field = dict(place.around)[other.step.id]
        if field == "fan_in_steps":
            return ""
        return f"{other.step.id!r} is not over while the steps in it run"

    def _beside(self, here: tuple[str, str, int], there: tuple[str, str, int], name: str) -> str:
        pattern, field, position = here
        _, other_field, other_position = there
        if field != other_field:
            if (other_field, field) == ("fan_out_steps", "fan_in_steps"):
                return ""
            return f"{name!r} runs later" if field == "fan_out_steps" else f"{name!r} is in the other branch"
        if self._at_once(pattern, field):
            return f"{name!r} runs at the same time"
        return "" if other_position < position else f"{name!r} runs later"

    def _at_once(self, pattern: str, field: str) -> bool:
        if not pattern:
            return False
        step = self.places[pattern].step
        return step.type == "parallel" or (
            isinstance(step, FanOutFanIn) and field == "fan_out_steps" and not step.for_each
        )


def workflow_call_faults(places: Outline) -> Iterator[Fault]:
    """Workflows that would run workflows, which is how one could come to run itself."""
    for place in places.values():
        step = place.step
        if not is_pattern(step) and step.type == "agent" and step.graph == "workflow":
            yield Fault(
                f"{place.path}.graph",
                step.id,
                "graph",
                "a workflow is no step of a workflow; write its steps here",
            )
