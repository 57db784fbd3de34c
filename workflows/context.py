"""The context: what the expressions of a step see of its workflow."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from workflows.outline import Outline, OutlineEntry
from workflows.results import Indices, Results, format_result_key, read_count
from workflows.schema import FanOutFanIn, Loop, Parallel, Sequential, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLocation:
    """Where in a run a step executes, and the results it can see from there.

    Attributes:
        outline: The outline of the definition.
        input: The workflow's input.
        results: The records so far, by :func:`workflows.results.format_result_key`.
        indices: The current iteration of each loop and item of each ``for_each`` around the step.
        item: The item of the innermost ``for_each``; only meaningful when ``index`` is not None.
        index: The item's position in its list.
    """

    outline: Outline
    input: Mapping[str, JsonValue]
    results: Results
    indices: Indices = field(default_factory=dict)
    item: JsonValue = None
    index: int | None = None

    def format_key(self, step_id: str) -> str:
        """Return the key of the record of a step that is in the same iterations as this location."""
        return _format_key(self.outline[step_id], self.indices)

    def build_context(self, step_ids: Iterable[str], repeaters: Iterable[str]) -> dict[str, JsonValue]:
        """Return the context with some of the steps; a step that did not run is null.

        Args:
            step_ids: The steps that the expressions read.
            repeaters: Ids of the loops and ``for_each`` patterns around the reader, outermost first.
        """
        context: dict[str, JsonValue] = {
            "input": dict(self.input),
            "steps": {step_id: self._describe(self.outline[step_id]) for step_id in step_ids},
        }
        if self.index is not None:
            context |= {"item": self.item, "index": self.index}
        for repeater in repeaters:
            if isinstance(self.outline[repeater].step, Loop):
                context["iteration"] = self.indices[repeater]
        return context

    def read_output(self, step: Step) -> JsonValue:
        """Return a step's output as later steps see it."""
        return self._read_output(self.outline[step.id], self.indices)

    def _describe(self, entry: OutlineEntry) -> JsonValue:
        indices = self._find_latest_indices(entry)
        if indices is None:
            return {"status": "succeeded", "output": self._collect_outputs(entry, self.indices), "error": ""}
        record = self.results.get(_format_key(entry, indices))
        if record is None and not isinstance(entry.step, Sequential):
            return None
        return {
            "status": record["status"] if record else "succeeded",
            "output": self._read_output(entry, indices),
            "error": record["error"] if record else "",
        }

    def _find_latest_indices(self, entry: OutlineEntry) -> Indices | None:
        """Return the indices to read a step at: the current ones, and the last of a finished loop.

        None: the step is inside a ``for_each`` that this location is outside of, so that it has many records.
        """
        indices: dict[str, int] = {}
        for repeater in entry.repeaters:
            if repeater in self.indices:
                indices[repeater] = self.indices[repeater]
            elif isinstance(self.outline[repeater].step, Loop):
                indices[repeater] = self._count(self.outline[repeater], indices, "iterations")
            else:
                return None
        return indices

    def _count(self, entry: OutlineEntry, indices: Indices, name: Literal["items", "iterations"]) -> int:
        return read_count(self.results.get(_format_key(entry, indices)), name)

    def _collect_outputs(self, entry: OutlineEntry, known: Indices) -> JsonValue:
        """Return a step's outputs for all items of the ``for_each`` patterns around it, nested like those."""
        indices: dict[str, int] = {}
        for repeater in entry.repeaters:
            pattern = self.outline[repeater]
            if repeater in known:
                indices[repeater] = known[repeater]
            elif isinstance(pattern.step, Loop):
                indices[repeater] = self._count(pattern, indices, "iterations")
            else:
                items = range(self._count(pattern, indices, "items"))
                return [self._collect_outputs(entry, {**known, **indices, repeater: item}) for item in items]
        return self._read_output(entry, indices)

    def _read_output(self, entry: OutlineEntry, indices: Indices) -> JsonValue:
        step = entry.step
        match step:
            case Sequential():
                return self._read_output(self.outline[step.steps[-1].id], indices)
            case Parallel():
                return self._collect_outputs_by_id(step.steps, indices)
            case FanOutFanIn() if not step.for_each:
                return self._collect_outputs_by_id(step.fan_out_steps, indices)
            case FanOutFanIn():
                last = self.outline[step.fan_out_steps[-1].id]
                items = range(self._count(entry, indices, "items"))
                return [self._read_output(last, {**indices, step.id: item}) for item in items]
        record = self.results.get(_format_key(entry, indices))
        return record["output"] if record else None

    def _collect_outputs_by_id(self, steps: Iterable[Step], indices: Indices) -> JsonValue:
        return {child.id: self._read_output(self.outline[child.id], indices) for child in steps}


def _format_key(entry: OutlineEntry, indices: Indices) -> str:
    return format_result_key(entry.step.id, [indices[repeater] for repeater in entry.repeaters])
