"""How much a run may come to."""

from collections.abc import Iterator, Sequence

from workflows.definition.patterns import Conditional, FanOutFanIn, Loop, Step
from workflows.definition.workflow import Definition
from workflows.outline import Outline, children, is_pattern
from workflows.validation.faults import Fault

MOST_STEPS = 10_000
# Steps that are a node of a graph each; the working steps of one fan-out share a node.
MOST_NODES = 1_000
DEEPEST = 12


def size_faults(definition: Definition, places: Outline) -> Iterator[Fault]:
    """Too many steps, too deep, or more turns of loops and ``for_each`` than ``limits.max_steps`` allows."""
    if len(places) > MOST_STEPS:
        yield Fault("steps", "", "steps", f"has {len(places)} steps, and at most {MOST_STEPS} may be written")
    nodes = sum(not _shares_a_node(places, step_id) for step_id in places)
    if nodes > MOST_NODES:
        yield Fault(
            "steps",
            "",
            "steps",
            f"has {nodes} steps outside of fan-outs, and at most {MOST_NODES} may be written; a loop or a "
            "for_each repeats them",
        )
    for place in places.values():
        if len(place.around) == DEEPEST:
            yield Fault(place.path, place.step.id, "", f"is nested deeper than {DEEPEST} patterns")
    most = _most(definition.steps)
    if most > definition.limits.max_steps:
        yield Fault(
            "limits.max_steps",
            "",
            "limits.max_steps",
            f"the bounds of its loops and for_each come to {most} working steps, and "
            f"{definition.limits.max_steps} are allowed; lower max_iterations or max_items or raise it",
        )


def _shares_a_node(places: Outline, step_id: str) -> bool:
    place = places[step_id]
    if is_pattern(place.step) or not place.around:
        return False
    pattern, field = place.around[-1]
    step = places[pattern].step
    return step.type == "parallel" or (
        isinstance(step, FanOutFanIn) and field == "fan_out_steps" and not step.for_each
    )


def _most(steps: Sequence[Step]) -> int:
    """Working steps that a run of these may come to."""
    return sum(_most_of(step) for step in steps)


def _most_of(step: Step) -> int:
    match step:
        case Loop():
            return step.max_iterations * _most(step.steps)
        case Conditional():
            return max(_most(step.then), _most(step.otherwise))
        case FanOutFanIn():
            turns = step.max_items if step.for_each else 1
            return turns * _most(step.fan_out_steps) + _most(step.fan_in_steps)
    return sum(_most(steps) for _, steps in children(step)) if is_pattern(step) else 1
