"""A definition as a Mermaid flowchart, with the state of each step."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from workflows.definition.patterns import Conditional, FanOutFanIn, Loop, Parallel, Sequential, Step
from workflows.definition.workflow import Definition
from workflows.progress import StepProgress, StepState

_STYLES: Mapping[StepState, str] = {
    "pending": "fill:#f4f4f5,stroke:#a1a1aa,color:#52525b",
    "running": "fill:#dbeafe,stroke:#2563eb,color:#1e3a8a",
    "succeeded": "fill:#dcfce7,stroke:#16a34a,color:#14532d",
    "failed": "fill:#fee2e2,stroke:#dc2626,color:#7f1d1d",
    "skipped": "fill:#fef9c3,stroke:#ca8a04,color:#713f12",
}


def mermaid(definition: Definition, steps: Mapping[str, StepProgress] | None = None) -> str:
    """The flowchart.

    Args:
        definition: What is drawn.
        steps: How far each is (:func:`workflows.progress.progress`); none: nothing ran.
    """
    drawing = _Drawing(steps or {})
    first, last = drawing.sequence(definition.steps)
    lines = ["flowchart TD", "  start([start])", "  finish([finish])", *drawing.lines]
    lines += [f"  start --> {one}" for one in first]
    lines += [f"  {one} --> finish" for one in last]
    lines += [f"  classDef {state} {style}" for state, style in _STYLES.items()]
    return "\n".join(lines) + "\n"


# Where something begins and where it ends.
_Ends = tuple[list[str], list[str]]


class _Drawing:
    """Gathers lines; a pattern that has several branches is a box around them."""

    def __init__(self, steps: Mapping[str, StepProgress]) -> None:
        self._steps = steps
        self.lines: list[str] = []

    def sequence(self, steps: Sequence[Step]) -> _Ends:
        """One after the other."""
        ends = [self._step(step) for step in steps]
        for (_, before), (after, _) in pairwise(ends):
            self.lines += [f"  {one} --> {other}" for one in before for other in after]
        return ends[0][0], ends[-1][1]

    def _step(self, step: Step) -> _Ends:
        match step:
            case Sequential():
                return self.sequence(step.steps)
            case Conditional():
                return self._conditional(step)
            case Loop():
                return self._loop(step)
            case Parallel():
                return self._parallel(step, step.steps, "parallel")
            case FanOutFanIn():
                return self._fan(step)
        self._node(step, f'["{self._label(step)}"]')
        return [_node_id(step)], [_node_id(step)]

    def _conditional(self, step: Conditional) -> _Ends:
        self._node(step, f'{{"{self._label(step)}"}}')
        first, last = self.sequence(step.then)
        self.lines += [f"  {_node_id(step)} -->|then| {one}" for one in first]
        if not step.otherwise:
            return [_node_id(step)], [*last, _node_id(step)]
        first, others = self.sequence(step.otherwise)
        self.lines += [f"  {_node_id(step)} -->|otherwise| {one}" for one in first]
        return [_node_id(step)], [*last, *others]

    def _loop(self, step: Loop) -> _Ends:
        self._node(step, f'{{{{"{self._label(step)}, at most {step.max_iterations} times"}}}}')
        first, last = self.sequence(step.steps)
        self.lines += [f"  {_node_id(step)} --> {one}" for one in first]
        self.lines += [f"  {one} -->|again| {_node_id(step)}" for one in last]
        return [_node_id(step)], [_node_id(step)]

    def _parallel(self, step: Step, steps: Sequence[Step], label: str) -> _Ends:
        ends, joined = [self._step(one) for one in steps], f"join_{step.id}"
        self._node(step, f'[/"{self._label(step)}, {label}"\\]')
        self.lines.append(f"  {joined}(( )):::{self._state(step)}")
        self.lines += [f"  {_node_id(step)} --> {one}" for first, _ in ends for one in first]
        self.lines += [f"  {one} --> {joined}" for _, last in ends for one in last]
        return [_node_id(step)], [joined]

    def _fan(self, step: FanOutFanIn) -> _Ends:
        if not step.for_each:
            first, last = self._parallel(step, step.fan_out_steps, "fan out")
        else:
            joined = f"join_{step.id}"
            self._node(step, f'[/"{self._label(step)}, for each {_text(step.for_each)}"\\]')
            self.lines.append(f"  {joined}(( )):::{self._state(step)}")
            inner, outer = self.sequence(step.fan_out_steps)
            self.lines += [f"  {_node_id(step)} ==> {one}" for one in inner]
            self.lines += [f"  {one} ==> {joined}" for one in outer]
            first, last = [_node_id(step)], [joined]
        if not step.fan_in_steps:
            return first, last
        after, end = self.sequence(step.fan_in_steps)
        self.lines += [f"  {one} --> {other}" for one in last for other in after]
        return first, end

    def _node(self, step: Step, shape: str) -> None:
        self.lines.append(f"  {_node_id(step)}{shape}:::{self._state(step)}")

    def _state(self, step: Step) -> StepState:
        found = self._steps.get(step.id)
        return found.state if found else "pending"

    def _label(self, step: Step) -> str:
        label = _text(step.name or step.id)
        found = self._steps.get(step.id)
        return f"{label} ({found.done}x)" if found and found.done > 1 else label


def _node_id(step: Step) -> str:
    # An id may be one of Mermaid's own words, such as end.
    return f"step_{step.id}"


def _text(text: str) -> str:
    """As Mermaid shows it and reads nothing into it: its own entity codes for all but plain characters."""
    return "".join(
        one if one.isalnum() or one in " .,-_" else f"#{ord(one)};" for one in " ".join(text.split())
    )[:400]
