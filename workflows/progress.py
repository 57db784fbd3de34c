"""How far a workflow is."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from workflows.definition.patterns import Conditional, FanOutFanIn, Loop, Step
from workflows.definition.workflow import Definition
from workflows.outline import Outline, children, is_pattern
from workflows.results import Record, Results, result_key, step_of, turns_made

# ``pending``: not begun. ``running``: begun, or some of several turns are.
StepState: TypeAlias = Literal["pending", "running", "succeeded", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """One step of the definition, in all its turns together.

    Attributes:
        state: ``failed`` where one turn failed, else ``running`` where one is begun and not all are done.
        done: Turns that are over.
        started: When the first began, seconds since the epoch; 0: not yet.
        finished: When the last ended; 0: not yet.
        seconds: Of work in all turns.
        error: Of the first turn that failed.
    """

    state: StepState
    done: int = 0
    started: float = 0
    finished: float = 0
    seconds: float = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A workflow's steps.

    Attributes:
        done: Working steps that are over, each turn counted.
        total: Those it comes to, as far as it is known: a loop by the iterations it has begun, a ``for_each``
            by its items once its list is there, a conditional by its chosen branch.
        steps: By id, in the order of the definition.
    """

    done: int
    total: int
    steps: Mapping[str, StepProgress]


def progress(
    definition: Definition, places: Outline, results: Results, running: Collection[str] = ()
) -> Progress:
    """How far the workflow with these results is.

    Args:
        definition: Its.
        places: Outline of the definition.
        results: So far.
        running: Ids of the steps that are at work.
    """
    by_step: dict[str, list[Record]] = {step_id: [] for step_id in places}
    for key, record in results.items():
        step_id = step_of(key)
        # A for_each keeps a record of each item too.
        if key.count("[") == len(places[step_id].turns):
            by_step[step_id].append(record)
    working = [step_id for step_id, place in places.items() if not is_pattern(place.step)]
    done = sum(record["status"] != "running" for step_id in working for record in by_step[step_id])
    count = _Count(places, results)
    total = sum(count.of(step, ()) for step in definition.steps)
    steps = {step_id: _step(records, at_work=step_id in running) for step_id, records in by_step.items()}
    return Progress(done=done, total=max(total, done), steps=steps)


def _step(records: Sequence[Record], *, at_work: bool) -> StepProgress:
    if not records:
        return StepProgress(state="running" if at_work else "pending")
    found = Counter(record["status"] for record in records)
    found["running"] += at_work
    order: tuple[StepState, ...] = ("failed", "running", "succeeded", "skipped")
    over = [record for record in records if record["status"] != "running"]
    return StepProgress(
        state=next(state for state in order if found[state]),  # type: ignore[index]  # pending is none of them
        done=len(over),
        started=min(record["started"] for record in records),
        finished=max((record["finished"] for record in over), default=0),
        seconds=round(sum(record["seconds"] for record in over), 6),
        error=next((record["error"] for record in records if record["error"]), ""),
    )


@dataclass(frozen=True, slots=True)
class _Count:
    """Counts working steps with their turns."""

    places: Outline
    results: Results
    _begun: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        # Turns of each loop and for_each that any record is from: a loop in progress has none of its own.
        begun: dict[str, int] = {}
        for key in self.results:
            step_id, *turns = key.replace("]", "").split("[")
            for turn, index in zip(self.places[step_id].turns, turns, strict=False):
                place = result_key(turn, [int(one) for one in turns[: len(self.places[turn].turns)]])
                begun[place] = max(begun.get(place, 0), int(index))
        object.__setattr__(self, "_begun", begun)

    def of(self, step: Step, turns: tuple[int, ...], *, over: bool = False) -> int:
        """Of a step in a turn; where what it is in is over, only what has run counts."""
        key = result_key(step.id, turns)
        record = self.results.get(key)
        if not is_pattern(step):
            return int(not over or record is not None)
        over = over or (record is not None and record["status"] == "skipped")
        match step:
            case Loop():
                iterations = self._begun.get(key, 0 if over else 1)
                turned = ((*turns, turn) for turn in range(1, iterations + 1))
                return sum(self.all(step.steps, turn, over=over) for turn in turned)
            case FanOutFanIn() if step.for_each:
                turned = ((*turns, item) for item in range(turns_made(record, "items")))
                inside = sum(self.all(step.fan_out_steps, turn, over=over) for turn in turned)
                return inside + self.all(step.fan_in_steps, turns, over=over)
            case Conditional():
                output = record["output"] if record else None
                otherwise = isinstance(output, dict) and output.get("branch") == "otherwise"
                return self.all(step.otherwise if otherwise else step.then, turns, over=over)
            case _:
                return sum(self.all(steps, turns, over=over) for _, steps in children(step))

    def all(self, steps: Sequence[Step], turns: tuple[int, ...], *, over: bool = False) -> int:
        """Of several steps in a turn."""
        return sum(self.of(step, turns, over=over) for step in steps)
