"""What the expressions of a step see of its workflow."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from workflows.definition.patterns import FanOutFanIn, Loop, Parallel, Sequential, Step
from workflows.outline import Outline, Place
from workflows.results import Results, Turns, result_key, turns_made


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """A moment of a run, as a step sees it.

    Attributes:
        outline: Of the definition.
        given: The workflow's input.
        results: Of the steps so far, by :func:`result_key`.
        turns: Which turn of each loop (from 1) and ``for_each`` (from 0) around it this is.
        item: Of the innermost ``for_each``, where there is one: then ``index`` is not None.
        index: Its place in the list.
    """

    outline: Outline
    given: Mapping[str, JsonValue]
    results: Results
    turns: Turns = field(default_factory=dict)
    item: JsonValue = None
    index: int | None = None

    def key(self, step_id: str) -> str:
        """Where the record of a step around or beside this moment is."""
        return result_key(step_id, [self.turns[turn] for turn in self.outline[step_id].turns])

    def context(self, referred: Iterable[str], turns: Iterable[str]) -> dict[str, JsonValue]:
        """The context, with those steps that are referred to; one that did not run is null.

        Args:
            referred: Ids of steps.
            turns: Ids of the loops and ``for_each`` around what looks, outermost first.
        """
        context: dict[str, JsonValue] = {
            "input": dict(self.given),
            "steps": {step_id: self._seen(self.outline[step_id]) for step_id in referred},
        }
        if self.index is not None:
            context |= {"item": self.item, "index": self.index}
        for turn in turns:
            if isinstance(self.outline[turn].step, Loop):
                context["iteration"] = self.turns[turn]
        return context

    def output(self, step: Step) -> JsonValue:
        """A step's output as later steps see it."""
        return self._output(self.outline[step.id], self.turns)

    def _seen(self, place: Place) -> JsonValue:
        turns = self._latest(place)
        if turns is None:
            # Seen from outside a for_each: all its items.
            return {"status": "succeeded", "output": self._spread(place, self.turns), "error": ""}
        record = self.results.get(_key(place, turns))
        if record is None and not isinstance(place.step, Sequential):
            return None
        return {
            "status": record["status"] if record else "succeeded",
            "output": self._output(place, turns),
            "error": record["error"] if record else "",
        }

    def _latest(self, place: Place) -> Turns | None:
        """The turns in which it is seen: those around here, of a finished loop the last; None: several."""
        turns: dict[str, int] = {}
        for turn in place.turns:
            if turn in self.turns:
                turns[turn] = self.turns[turn]
            elif isinstance(self.outline[turn].step, Loop):
                turns[turn] = self._iterations(self.outline[turn], turns)
            else:
                return None
        return turns

    def _iterations(self, place: Place, turns: Turns) -> int:
        return turns_made(self.results.get(_key(place, turns)), "iterations")

    def _items(self, place: Place, turns: Turns) -> int:
        return turns_made(self.results.get(_key(place, turns)), "items")

    def _spread(self, place: Place, known: Turns) -> JsonValue:
        """The outputs of a step in all items of the ``for_each`` around it, nested as those are."""
        turns: dict[str, int] = {}
        for turn in place.turns:
            around = self.outline[turn]
            if turn in known:
                turns[turn] = known[turn]
            elif isinstance(around.step, Loop):
                turns[turn] = self._iterations(around, turns)
            else:
                items = range(self._items(around, turns))
                return [self._spread(place, {**known, **turns, turn: item}) for item in items]
        return self._output(place, turns)

    def _output(self, place: Place, turns: Turns) -> JsonValue:
        step = place.step
        match step:
            case Sequential():
                return self._output(self.outline[step.steps[-1].id], turns)
            case Parallel():
                return {child.id: self._output(self.outline[child.id], turns) for child in step.steps}
            case FanOutFanIn() if not step.for_each:
                return {child.id: self._output(self.outline[child.id], turns) for child in step.fan_out_steps}
            case FanOutFanIn():
                last = self.outline[step.fan_out_steps[-1].id]
                items = range(self._items(place, turns))
                return [self._output(last, {**turns, step.id: item}) for item in items]
        record = self.results.get(_key(place, turns))
        return record["output"] if record else None


def _key(place: Place, turns: Turns) -> str:
    return result_key(place.step.id, [turns[turn] for turn in place.turns])
