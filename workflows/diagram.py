"""Mermaid flowcharts of definitions, with the state of each step."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from workflows.progress import StepProgress, StepState
from workflows.schema import Conditional, Definition, FanOutFanIn, Loop, Parallel, Sequential, Step

_STYLES: Final[Mapping[StepState, str]] = {
    "pending": "fill:#f4f4f5,stroke:#a1a1aa,color:#52525b",
    "running": "fill:#dbeafe,stroke:#2563eb,color:#1e3a8a",
    "succeeded": "fill:#dcfce7,stroke:#16a34a,color:#14532d",
    "failed": "fill:#fee2e2,stroke:#dc2626,color:#7f1d1d",
    "skipped": "fill:#fef9c3,stroke:#ca8a04,color:#713f12",
}
_MAX_LABEL_LENGTH: Final = 400
# The nodes where a part of the diagram begins, and those where it ends.
_Ends: TypeAlias = tuple[list[str], list[str]]


def render_mermaid(definition: Definition, steps: Mapping[str, StepProgress] | None = None) -> str:
    """Return the flowchart of a definition.

    Args:
        definition: The workflow to draw.
        steps: The progress of each step (:func:`workflows.progress.compute_progress`); None: nothing ran.
    """
    drawing = _Drawing(steps or {})
    first, last = drawing.draw_sequence(definition.steps)
    lines = ["flowchart TD", "  start([start])", "  finish([finish])", *drawing.lines]
    lines += [f"  start --> {node}" for node in first]
    lines += [f"  {node} --> finish" for node in last]
    lines += [f"  classDef {state} {style}" for state, style in _STYLES.items()]
    return "\n".join(lines) + "\n"


class _Drawing:
    """Collects the lines of a flowchart."""

    def __init__(self, steps: Mapping[str, StepProgress]) -> None:
        self._steps = steps
        self.lines: list[str] = []

    def draw_sequence(self, steps: Sequence[Step]) -> _Ends:
        """Draw steps one after the other."""
        ends = [self._draw_step(step) for step in steps]
        for (_, before), (after, _) in pairwise(ends):
            self.lines += [f"  {source} --> {target}" for source in before for target in after]
        return ends[0][0], ends[-1][1]

    def _draw_step(self, step: Step) -> _Ends:
        match step:
            case Sequential():
                return self.draw_sequence(step.steps)
            case Conditional():
                return self._draw_conditional(step)
            case Loop():
                return self._draw_loop(step)
            case Parallel():
                return self._draw_parallel(step, step.steps, "parallel")
            case FanOutFanIn():
                return self._draw_fan_out_fan_in(step)
        return self._draw_node(step, f'["{self._label(step)}"]')

    def _draw_conditional(self, step: Conditional) -> _Ends:
        begin, _ = self._draw_node(step, f'{{"{self._label(step)}"}}')
        first, last = self.draw_sequence(step.then)
        self.lines += [f"  {_node_id(step)} -->|then| {node}" for node in first]
        if not step.otherwise:
            return begin, [*last, *begin]
        first, others = self.draw_sequence(step.otherwise)
        self.lines += [f"  {_node_id(step)} -->|otherwise| {node}" for node in first]
        return begin, [*last, *others]

    def _draw_loop(self, step: Loop) -> _Ends:
        ends = self._draw_node(step, f'{{{{"{self._label(step)}, at most {step.max_iterations} times"}}}}')
        first, last = self.draw_sequence(step.steps)
        self.lines += [f"  {_node_id(step)} --> {node}" for node in first]
        self.lines += [f"  {node} -->|again| {_node_id(step)}" for node in last]
        return ends

    def _draw_parallel(self, step: Step, steps: Sequence[Step], label: str) -> _Ends:
        ends = [self._draw_step(child) for child in steps]
        begin, join = self._draw_fork(step, label)
        self.lines += [f"  {_node_id(step)} --> {node}" for first, _ in ends for node in first]
        self.lines += [f"  {node} --> {join[0]}" for _, last in ends for node in last]
        return begin, join

    def _draw_fan_out_fan_in(self, step: FanOutFanIn) -> _Ends:
        if not step.for_each:
            begin, join = self._draw_parallel(step, step.fan_out_steps, "fan out")
        else:
            begin, join = self._draw_fork(step, f"for each {_escape(step.for_each)}")
            first, last = self.draw_sequence(step.fan_out_steps)
            self.lines += [f"  {_node_id(step)} ==> {node}" for node in first]
            self.lines += [f"  {node} ==> {join[0]}" for node in last]
        if not step.fan_in_steps:
            return begin, join
        first, last = self.draw_sequence(step.fan_in_steps)
        self.lines += [f"  {join[0]} --> {node}" for node in first]
        return begin, last

    def _draw_fork(self, step: Step, label: str) -> _Ends:
        """Draw the node where parallel steps begin and the one where they join."""
        begin, _ = self._draw_node(step, f'[/"{self._label(step)}, {label}"\\]')
        join = f"join_{step.id}"
        self.lines.append(f"  {join}(( )):::{self._state(step)}")
        return begin, [join]

    def _draw_node(self, step: Step, shape: str) -> _Ends:
        node = _node_id(step)
        self.lines.append(f"  {node}{shape}:::{self._state(step)}")
        return [node], [node]

    def _state(self, step: Step) -> StepState:
        progress = self._steps.get(step.id)
        return progress.state if progress else "pending"

    def _label(self, step: Step) -> str:
        label = _escape(step.name or step.id)
        progress = self._steps.get(step.id)
        return f"{label} ({progress.done}x)" if progress and progress.done > 1 else label


def _node_id(step: Step) -> str:
    # A step's id may be a keyword of Mermaid, such as end.
    return f"step_{step.id}"


def _escape(text: str) -> str:
    """Write all but plain characters as Mermaid's entity codes, so that they are shown and never parsed."""
    return "".join(
        character if character.isalnum() or character in " .,-_" else f"#{ord(character)};"
        for character in " ".join(text.split())
    )[:_MAX_LABEL_LENGTH]
