"""A compiled workflow does what its definition says: the same as a plain interpreter of it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from graphs.workflow import compile_workflow
from nodes.workflow.recovery import retry
from tests.support.workflows import FakeApi, Json, build_engine
from workflows.outline import build_outline, is_pattern
from workflows.progress import compute_progress
from workflows.results import parse_step_id, result_key
from workflows.schema import Conditional, Definition, FanOutFanIn, Loop, Parallel, Sequential, Step
from workflows.validation import read_definition

THREAD: RunnableConfig = {"configurable": {"thread_id": "w"}}
Turns = tuple[int, ...]


class Stopped(Exception):
    """A step failed, and nothing around it says that it may."""


class Interpreter:
    """Runs a definition in the plainest way there is: one step at a time, recursively."""

    def __init__(self, failing: set[str], items: int) -> None:
        self.failing, self.items = failing, items
        self.records: dict[str, tuple[str, Any]] = {}

    def run(self, definition: Definition) -> str:
        try:
            self.run_all(definition.steps, (), None)
        except Stopped:
            return "failed"
        return "succeeded"

    def run_all(self, steps: Sequence[Step], turns: Turns, iteration: int | None) -> None:
        for step in steps:
            self.run_one(step, turns, iteration)

    def run_one(self, step: Step, turns: Turns, iteration: int | None) -> None:
        if not self.holds(step.when, turns, iteration):
            if not is_pattern(step):
                self.records[result_key(step.id, turns)] = ("skipped", None)
            return
        if not is_pattern(step):
            self.work(step, turns)
            return
        try:
            self.pattern(step, turns, iteration)
        except Stopped:
            if step.on_error != "skip":
                raise

    def work(self, step: Any, turns: Turns) -> None:
        key = result_key(step.id, turns)
        if step.id not in self.failing:
            self.records[key] = ("succeeded", key)
            return
        last = step.on_error if isinstance(step.on_error, str) else step.on_error.then
        self.records[key] = ("skipped" if last == "skip" else "failed", None)
        if last == "fail":
            raise Stopped

    def pattern(self, step: Step, turns: Turns, iteration: int | None) -> None:
        match step:
            case Sequential():
                self.run_all(step.steps, turns, iteration)
            case Conditional():
                holds = self.holds(step.condition, turns, iteration)
                self.run_all(step.then if holds else step.otherwise, turns, iteration)
            case Loop():
                for turn in range(1, step.max_iterations + 1):
                    self.run_all(step.steps, (*turns, turn), turn)
                    if step.break_condition and self.holds(step.break_condition, (*turns, turn), turn):
                        break
            case Parallel():
                self.parallel([([inner], turns) for inner in step.steps], iteration)
            case FanOutFanIn() if step.for_each:
                turned = [(step.fan_out_steps, (*turns, item)) for item in range(self.items)]
                self.parallel(turned, iteration)
                self.run_all(step.fan_in_steps, turns, iteration)
            case FanOutFanIn():
                self.parallel([([inner], turns) for inner in step.fan_out_steps], iteration)
                self.run_all(step.fan_in_steps, turns, iteration)

    def parallel(self, branches: Sequence[tuple[Sequence[Step], Turns]], iteration: int | None) -> None:
        stopped = False
        for steps, turns in branches:
            try:
                self.run_all(steps, turns, iteration)
            except Stopped:
                stopped = True
        if stopped:
            raise Stopped

    def holds(self, condition: Any, turns: Turns, iteration: int | None) -> bool:
        match condition.type:
            case "always_true":
                return True
            case "context_key_exists":
                return bool(condition.key == "input.items")
            case "iteration_limit":
                return iteration is not None and iteration >= condition.limit
        # The only expressions that are generated: an earlier step of the same list succeeded.
        return (
            self.records.get(result_key(condition.expression.split(".")[1], turns), ("", 0))[0] == "succeeded"
        )


class DefinitionDrawer:
    """Draws a definition. What runs beside others refers to none of them."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.ids = count()

    def one_in(self, chances: int) -> bool:
        return self.draw(st.integers(1, chances)) == 1

    def condition(self, earlier: Sequence[str], *, in_loop: bool) -> Json:
        kinds = ["always_true", "input.items", "input.none", *(["iteration"] if in_loop else []), *earlier]
        kind = self.draw(st.sampled_from(kinds))
        if kind == "always_true":
            return {"type": kind}
        if kind.startswith("input."):
            return {"type": "context_key_exists", "key": kind}
        if kind == "iteration":
            return {"type": "iteration_limit", "limit": self.draw(st.integers(1, 3))}
        return {"type": "expression", "expression": f"steps.{kind}.output"}

    def sequence(self, depth: int, most: int, *, in_loop: bool) -> list[Json]:
        earlier: list[str] = []
        steps = []
        for _ in range(self.draw(st.integers(1, most))):
            steps.append(self.step(depth, earlier, in_loop=in_loop))
            if steps[-1]["type"] == "api_call":
                earlier.append(steps[-1]["id"])
        return steps

    def parallel(self, depth: int, most: int, *, in_loop: bool) -> list[Json]:
        return [self.step(depth, (), in_loop=in_loop) for _ in range(self.draw(st.integers(1, most)))]

    def step(self, depth: int, earlier: Sequence[str], *, in_loop: bool) -> Json:
        kinds = ["work", "work", *(["sequential", "parallel", "conditional", "loop", "fan"] if depth else [])]
        kind = self.draw(st.sampled_from(kinds))
        written_step: Json = {"id": f"s{next(self.ids)}"}
        if self.one_in(4):
            written_step["when"] = self.condition(earlier, in_loop=in_loop)
        if self.one_in(4):
            written_step["on_error"] = "skip"
        inside: dict[str, Callable[[], Json]] = {
            "work": self.work,
            "sequential": lambda: {
                "type": "sequential",
                "steps": self.sequence(depth - 1, 3, in_loop=in_loop),
            },
            "parallel": lambda: {"type": "parallel", "steps": self.parallel(depth - 1, 3, in_loop=in_loop)},
            "conditional": lambda: self.conditional(depth - 1, earlier, in_loop=in_loop),
            "loop": lambda: self.loop(depth - 1),
            "fan": lambda: self.fan(depth - 1, in_loop=in_loop),
        }
        return written_step | inside[kind]()

    def work(self) -> Json:
        retry = {"retry": 1, "then": self.draw(st.sampled_from(["fail", "skip"]))}
        retries = {"on_error": retry} if self.one_in(6) else {}
        return {"type": "api_call", "url": "https://example.com/", **retries}

    def conditional(self, depth: int, earlier: Sequence[str], *, in_loop: bool) -> Json:
        otherwise = {"otherwise": self.sequence(depth, 2, in_loop=in_loop)} if self.one_in(2) else {}
        return {
            "type": "conditional",
            "condition": self.condition(earlier, in_loop=in_loop),
            "then": self.sequence(depth, 2, in_loop=in_loop),
            **otherwise,
        }

    def loop(self, depth: int) -> Json:
        steps = self.sequence(depth, 2, in_loop=True)
        inside = [inner["id"] for inner in steps if inner["type"] == "api_call"]
        breaks = {"break_condition": self.condition(inside, in_loop=True)} if self.one_in(2) else {}
        return {"type": "loop", "steps": steps, "max_iterations": self.draw(st.integers(1, 3)), **breaks}

    def fan(self, depth: int, *, in_loop: bool) -> Json:
        fan: Json = {"type": "fan_out_fan_in"}
        if self.one_in(2):
            fan |= {"for_each": "input.items", "max_items": 5}
            fan["fan_out_steps"] = self.sequence(depth, 2, in_loop=in_loop)
        else:
            fan["fan_out_steps"] = self.parallel(depth, 2, in_loop=in_loop)
        if self.one_in(2):
            fan["fan_in_steps"] = self.sequence(depth, 2, in_loop=in_loop)
        return fan


@st.composite
def definitions(draw: st.DrawFn) -> Json:
    """Definitions of all patterns, nested up to three deep."""
    inputs = {"items": {"type": "array"}, "none": {"type": "string", "required": False}}
    return {
        "name": "generated",
        "inputs": inputs,
        "steps": DefinitionDrawer(draw).sequence(3, 3, in_loop=False),
    }


def working(definition: Definition, results: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    places = build_outline(definition)
    return {
        key: (record["status"], record["output"])
        for key, record in results.items()
        if not is_pattern(places[parse_step_id(key)].step)
    }


@given(written=definitions(), data=st.data())
@settings(max_examples=60, deadline=None)
async def test_a_compiled_workflow_does_what_its_definition_says(written: Json, data: st.DataObject) -> None:
    definition = read_definition(written)
    steps = sorted(step for step, place in build_outline(definition).items() if not is_pattern(place.step))
    failing = data.draw(st.sets(st.sampled_from(steps), max_size=2))
    items = data.draw(st.integers(1, 3))
    expected = Interpreter(failing, items)
    status = expected.run(definition)
    api = FakeApi(failing)
    crash = data.draw(st.none() | st.integers(1, 6))
    calls = count(1)

    def crashing(_: Any) -> None:
        if next(calls) == crash:
            raise RuntimeError("power cut")

    api.before = crashing
    wave = data.draw(st.sampled_from([1, 2, 500]))
    graph = compile_workflow(definition, build_engine(api, wave=wave), InMemorySaver())
    begin: Any = {"input": {"items": [{} for _ in range(items)], "none": None}}
    try:
        output = await graph.ainvoke(begin, THREAD)
    except RuntimeError:
        output = await graph.ainvoke(None, THREAD)
    results = (await graph.aget_state(THREAD)).values["results"]

    assert output["status"] == status
    assert working(definition, results) == expected.records
    progress = compute_progress(definition, build_outline(definition), results)
    assert progress.done == len(expected.records)
    assert status == "failed" or progress.total == progress.done
    if status == "failed":
        await _check_recovery(graph, definition, api, results)


async def _check_recovery(
    graph: Any, definition: Definition, api: FakeApi, before: Mapping[str, Any]
) -> None:
    api.failing.clear()
    api.before = lambda _: None
    done = {key for key, (status, _) in working(definition, before).items() if status == "succeeded"}
    called = dict(api.calls)
    recovery = await retry(graph, THREAD, definition)
    output = await graph.ainvoke(recovery.input, THREAD)

    assert output["status"] == "succeeded"
    again = {key for key in done if api.calls[f"w:{key}"] != called[f"w:{key}"]}
    assert again == set(), "a finished step ran again"
