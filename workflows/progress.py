"""Progress: how many steps of a workflow are done, and the state of each."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from workflows.outline import Outline, is_pattern, list_children
from workflows.results import Record, Results, format_result_key, parse_step_id, read_count
from workflows.schema import Conditional, Definition, FanOutFanIn, Loop, Step

# A step that runs several times is ``running`` while some of its executions are.
StepState: TypeAlias = Literal["pending", "running", "succeeded", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """The progress of one step of the definition, over all its executions.

    Attributes:
        state: ``failed`` if one execution failed, else ``running`` if one started and not all are finished.
        done: Number of finished executions.
        started: When the first started, in seconds since the epoch; 0: none has.
        finished: When the last finished; 0: none has.
        seconds: Total time worked.
        error: The error of the first execution that failed.
    """

    state: StepState
    done: int = 0
    started: float = 0
    finished: float = 0
    seconds: float = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a workflow.

    Attributes:
        done: Number of finished executions of working steps.
        total: Their expected number, as far as it is known: of a loop, the iterations that have started; of a
            ``for_each``, its items once its list is known; of a conditional, the chosen branch.
        steps: The steps by id, in the order of the definition.
    """

    done: int
    total: int
    steps: Mapping[str, StepProgress]


def compute_progress(
    definition: Definition, outline: Outline, results: Results, running: Collection[str] = ()
) -> Progress:
    """Return the progress of a workflow.

    Args:
        definition: The workflow.
        outline: The outline of the definition.
        results: The records so far.
        running: Ids of the steps that are being executed.
    """
    records: dict[str, list[Record]] = {step_id: [] for step_id in outline}
    for key, record in results.items():
        step_id = parse_step_id(key)
        # A for_each also has a record for each of its items.
        if key.count("[") == len(outline[step_id].repeaters):
            records[step_id].append(record)
    working = [step_id for step_id, entry in outline.items() if not is_pattern(entry.step)]
    done = sum(record["status"] != "running" for step_id in working for record in records[step_id])
    total = _ExecutionCounter(outline, results).count_all(definition.steps, ())
    steps = {name: _summarize(found, is_running=name in running) for name, found in records.items()}
    return Progress(done=done, total=max(total, done), steps=steps)


def _summarize(records: Sequence[Record], *, is_running: bool) -> StepProgress:
    if not records:
        return StepProgress(state="running" if is_running else "pending")
    counts = Counter(record["status"] for record in records)
    counts["running"] += is_running
    order: tuple[StepState, ...] = ("failed", "running", "succeeded", "skipped")
    finished = [record for record in records if record["status"] != "running"]
    return StepProgress(
        state=next(state for state in order if counts[state]),  # type: ignore[index]  # pending is none of them
        done=len(finished),
        started=min(record["started"] for record in records),
        finished=max((record["finished"] for record in finished), default=0),
        seconds=round(sum(record["seconds"] for record in finished), 6),
        error=next((record["error"] for record in records if record["error"]), ""),
    )


@dataclass(frozen=True, slots=True)
class _ExecutionCounter:
    """Counts the executions of working steps, in all iterations and items."""

    outline: Outline
    results: Results
    _last_indices: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        # A loop in progress has no record of its own: its last iteration is that of any record inside it.
        last: dict[str, int] = {}
        for key in self.results:
            step_id, *indices = key.replace("]", "").split("[")
            for repeater, index in zip(self.outline[step_id].repeaters, indices, strict=False):
                depth = len(self.outline[repeater].repeaters)
                repeater_key = format_result_key(repeater, [int(outer) for outer in indices[:depth]])
                last[repeater_key] = max(last.get(repeater_key, 0), int(index))
        object.__setattr__(self, "_last_indices", last)

    def count_all(self, steps: Sequence[Step], indices: tuple[int, ...], *, is_finished: bool = False) -> int:
        """Count the executions of several steps; of a finished pattern, only those that have a record."""
        return sum(self._count(step, indices, is_finished=is_finished) for step in steps)

    def _count(self, step: Step, indices: tuple[int, ...], *, is_finished: bool) -> int:
        key = format_result_key(step.id, indices)
        record = self.results.get(key)
        if not is_pattern(step):
            return int(not is_finished or record is not None)
        is_finished = is_finished or (record is not None and record["status"] == "skipped")
        match step:
            case Loop():
                iterations = range(1, self._last_indices.get(key, 0 if is_finished else 1) + 1)
                return self._count_repeated(step.steps, indices, iterations, is_finished=is_finished)
            case FanOutFanIn() if step.for_each:
                items = range(read_count(record, "items"))
                return self._count_repeated(
                    step.fan_out_steps, indices, items, is_finished=is_finished
                ) + self.count_all(step.fan_in_steps, indices, is_finished=is_finished)
            case Conditional():
                output = record["output"] if record else None
                otherwise = isinstance(output, dict) and output.get("branch") == "otherwise"
                branch = step.otherwise if otherwise else step.then
                return self.count_all(branch, indices, is_finished=is_finished)
        return sum(
            self.count_all(steps, indices, is_finished=is_finished) for _, steps in list_children(step)
        )

    def _count_repeated(
        self, steps: Sequence[Step], indices: tuple[int, ...], repetitions: range, *, is_finished: bool
    ) -> int:
        return sum(self.count_all(steps, (*indices, index), is_finished=is_finished) for index in repetitions)
