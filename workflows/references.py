"""Check that steps refer only to what is declared, and to steps that have run before them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from workflows.expressions import Path
from workflows.faults import Fault
from workflows.outline import (
    Outline,
    OutlineEntry,
    find_repeaters,
    iter_steps,
    list_references,
    runs_children_in_parallel,
)
from workflows.schema import Definition, FanOutFanIn, Loop
from workflows.steps import DataProcessing
from workflows.templates import Template

_ROOTS: Final = "input, steps, item, index and iteration"
_STEP_FIELDS: Final = frozenset({"status", "output", "error"})


class _Level(NamedTuple):
    """One level on the way to a step: a pattern, its field, and the position in that field."""

    pattern: str
    field: str
    position: int


def iter_reference_faults(definition: Definition, outline: Outline) -> Iterator[Fault]:
    """Yield unknown names, and references of steps to themselves, to later steps or to parallel ones."""
    checker = _ReferenceChecker(definition, outline)
    for entry in iter_steps(definition):
        for field, path in list_references(entry.step):
            if message := checker.check(entry, field, path):
                yield Fault(f"{entry.path}.{field}", entry.step.id, field, message)
    for path in sorted(Template(definition.result).list_paths()):
        if message := checker.check(None, "result", path):
            yield Fault("result", "", "result", message)


@dataclass(frozen=True, slots=True)
class _ReferenceChecker:
    """Checks references; every method returns what is wrong, or an empty text."""

    definition: Definition
    outline: Outline

    def check(self, entry: OutlineEntry | None, field: str, path: Path) -> str:
        """Check one reference; ``entry`` is None for the workflow's result."""
        root, *rest = path
        if root == "input":
            return self._check_input(rest)
        if root == "steps":
            return self._check_step(entry, field, rest)
        if root in {"item", "index"}:
            return self._check_item(entry, root)
        if root == "iteration":
            in_loop = entry is not None and any(
                isinstance(self.outline[repeater].step, Loop) for repeater in find_repeaters(entry, field)
            )
            return "" if in_loop else "iteration is known inside a loop only"
        return f"{root!r} is unknown; there are {_ROOTS}"

    def _check_input(self, rest: list[str]) -> str:
        if not rest or rest[0] in self.definition.inputs:
            return ""
        declared = ", ".join(sorted(self.definition.inputs)) or "none"
        return f"input.{rest[0]} is not declared in inputs; there are: {declared}"

    def _check_item(self, entry: OutlineEntry | None, root: str) -> str:
        if entry is not None and isinstance(entry.step, DataProcessing):
            return ""
        in_for_each = entry is not None and any(
            isinstance(self.outline[repeater].step, FanOutFanIn) for repeater in entry.repeaters
        )
        return "" if in_for_each else f"{root} is known in the fan_out_steps of a for_each only"

    def _check_step(self, entry: OutlineEntry | None, field: str, rest: list[str]) -> str:
        if not rest:
            return "steps as a whole cannot be read: name the step, as in steps.fetch.output"
        name = rest[0]
        if name not in self.outline:
            return f"there is no step {name!r}"
        if len(rest) > 1 and rest[1] not in _STEP_FIELDS:
            return f"steps.{name} has status, output and error, and no {rest[1]!r}"
        return self._check_order(entry, field, self.outline[name]) if entry is not None else ""

    def _check_order(self, entry: OutlineEntry, field: str, other: OutlineEntry) -> str:
        """Check that the other step runs before this one reads it."""
        name = other.step.id
        if name == entry.step.id:
            return f"{name!r} refers to itself"
        levels, other_levels = self._list_levels(entry), self._list_levels(other)
        if levels[: len(other_levels)] == other_levels:
            is_fan_in = dict(entry.ancestors)[name] == "fan_in_steps"
            return "" if is_fan_in else f"{name!r} is not finished while the steps inside it run"
        if other_levels[: len(levels)] == levels:
            # The other step is inside this pattern, which reads its fields before its steps run; only a
            # loop's break condition is evaluated after them.
            return "" if field == "break_condition" else f"{name!r} runs later"
        pairs = zip(levels, other_levels, strict=False)
        return self._check_siblings(*next(pair for pair in pairs if pair[0] != pair[1]), name)

    def _list_levels(self, entry: OutlineEntry) -> list[_Level]:
        lineage = [*(pattern for pattern, _ in entry.ancestors), entry.step.id]
        holders = [("", "steps"), *entry.ancestors]
        return [
            _Level(pattern, field, self.outline[child].position)
            for (pattern, field), child in zip(holders, lineage, strict=True)
        ]

    def _check_siblings(self, level: _Level, other: _Level, name: str) -> str:
        """Check two levels that are in the same pattern, but in different fields or positions."""
        if level.field != other.field:
            if (other.field, level.field) == ("fan_out_steps", "fan_in_steps"):
                return ""
            is_later = level.field == "fan_out_steps"
            return f"{name!r} runs later" if is_later else f"{name!r} is in the other branch"
        if level.pattern and runs_children_in_parallel(self.outline[level.pattern].step, level.field):
            return f"{name!r} runs at the same time"
        return "" if other.position < level.position else f"{name!r} runs later"
