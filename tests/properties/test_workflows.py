"""A compiled workflow behaves like a plain interpreter of its definition."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from graphs.workflow import compile_workflow
from nodes.workflow.recovery import retry
from tests.support.profiles import examples
from tests.support.workflows import FakeApi, Json, build_engine
from workflows.outline import build_outline, is_pattern
from workflows.progress import compute_progress
from workflows.results import format_result_key, parse_step_id
from workflows.schema import Conditional, Definition, FanOutFanIn, Loop, Parallel, Sequential, Step
from workflows.validation import read_definition

THREAD: RunnableConfig = {"configurable": {"thread_id": "w"}}
Indices = tuple[int, ...]


class Stopped(Exception):
    """Raised when a step failed and no ``on_error: skip`` covers it."""


class Interpreter:
    """Runs a definition in the simplest way: recursively, one step at a time."""

    def __init__(self, failing: set[str], items: int) -> None:
        self.failing, self.items = failing, items
        self.records: dict[str, tuple[str, Any]] = {}

    def run(self, definition: Definition) -> str:
        try:
            self.run_all(definition.steps, (), None)
        except Stopped:
            return "failed"
        return "succeeded"

    def run_all(self, steps: Sequence[Step], indices: Indices, iteration: int | None) -> None:
        for step in steps:
            self.run_one(step, indices, iteration)

    def run_one(self, step: Step, indices: Indices, iteration: int | None) -> None:
        if not self.is_met(step.when, indices, iteration):
            if not is_pattern(step):
                self.records[format_result_key(step.id, indices)] = ("skipped", None)
            return
        if not is_pattern(step):
            self.run_working_step(step, indices)
            return
        try:
            self.run_pattern(step, indices, iteration)
        except Stopped:
            if step.on_error != "skip":
                raise

    def run_working_step(self, step: Any, indices: Indices) -> None:
        key = format_result_key(step.id, indices)
        if step.id not in self.failing:
            self.records[key] = ("succeeded", key)
            return
        last = step.on_error if isinstance(step.on_error, str) else step.on_error.then
        self.records[key] = ("skipped" if last == "skip" else "failed", None)
        if last == "fail":
            raise Stopped

    def run_pattern(self, step: Step, indices: Indices, iteration: int | None) -> None:
        match step:
            case Sequential():
                self.run_all(step.steps, indices, iteration)
            case Conditional():
                met = self.is_met(step.condition, indices, iteration)
                self.run_all(step.then if met else step.otherwise, indices, iteration)
            case Loop():
                for iteration_number in range(1, step.max_iterations + 1):
                    self.run_all(step.steps, (*indices, iteration_number), iteration_number)
                    if step.break_condition and self.is_met(
                        step.break_condition, (*indices, iteration_number), iteration_number
                    ):
                        break
            case Parallel():
                self.run_branches([([inner], indices) for inner in step.steps], iteration)
            case FanOutFanIn() if step.for_each:
                branches = [(step.fan_out_steps, (*indices, item)) for item in range(self.items)]
                self.run_branches(branches, iteration)
                self.run_all(step.fan_in_steps, indices, iteration)
            case FanOutFanIn():
                self.run_branches([([inner], indices) for inner in step.fan_out_steps], iteration)
                self.run_all(step.fan_in_steps, indices, iteration)

    def run_branches(self, branches: Sequence[tuple[Sequence[Step], Indices]], iteration: int | None) -> None:
        stopped = False
        for steps, indices in branches:
            try:
                self.run_all(steps, indices, iteration)
            except Stopped:
                stopped = True
        if stopped:
            raise Stopped

    def is_met(self, condition: Any, indices: Indices, iteration: int | None) -> bool:
        match condition.type:
            case "always_true":
                return True
            case "context_key_exists":
                return bool(condition.key == "input.items")
            case "iteration_limit":
                return iteration is not None and iteration >= condition.limit
        # The only expressions that are generated: an earlier step of the same list succeeded.
        return (
            self.records.get(format_result_key(condition.expression.split(".")[1], indices), ("", 0))[0]
            == "succeeded"
        )


class DefinitionStrategy:
    """Draws a definition, in which parallel steps do not refer to each other."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.ids = count()

    def one_in(self, chances: int) -> bool:
        return self.draw(st.integers(1, chances)) == 1

    def draw_condition(self, earlier_ids: Sequence[str], *, in_loop: bool) -> Json:
        kinds = [
            "always_true",
            "input.items",
            "input.none",
            *(["iteration"] if in_loop else []),
            *earlier_ids,
        ]
        kind = self.draw(st.sampled_from(kinds))
        if kind == "always_true":
            return {"type": kind}
        if kind.startswith("input."):
            return {"type": "context_key_exists", "key": kind}
        if kind == "iteration":
            return {"type": "iteration_limit", "limit": self.draw(st.integers(1, 3))}
        return {"type": "expression", "expression": f"steps.{kind}.output"}

    def draw_sequence(self, depth: int, most: int, *, in_loop: bool) -> list[Json]:
        earlier_ids: list[str] = []
        steps = []
        for _ in range(self.draw(st.integers(1, most))):
            steps.append(self.draw_step(depth, earlier_ids, in_loop=in_loop))
            if steps[-1]["type"] == "api_call":
                earlier_ids.append(steps[-1]["id"])
        return steps

    def draw_parallel(self, depth: int, most: int, *, in_loop: bool) -> list[Json]:
        return [self.draw_step(depth, (), in_loop=in_loop) for _ in range(self.draw(st.integers(1, most)))]

    def draw_step(self, depth: int, earlier_ids: Sequence[str], *, in_loop: bool) -> Json:
        kinds = ["work", "work", *(["sequential", "parallel", "conditional", "loop", "fan"] if depth else [])]
        kind = self.draw(st.sampled_from(kinds))
        document: Json = {"id": f"s{next(self.ids)}"}
        if self.one_in(4):
            document["when"] = self.draw_condition(earlier_ids, in_loop=in_loop)
        if self.one_in(4):
            document["on_error"] = "skip"
        inside: dict[str, Callable[[], Json]] = {
            "work": self.draw_working_step,
            "sequential": lambda: {
                "type": "sequential",
                "steps": self.draw_sequence(depth - 1, 3, in_loop=in_loop),
            },
            "parallel": lambda: {
                "type": "parallel",
                "steps": self.draw_parallel(depth - 1, 3, in_loop=in_loop),
            },
            "conditional": lambda: self.draw_conditional(depth - 1, earlier_ids, in_loop=in_loop),
            "loop": lambda: self.draw_loop(depth - 1),
            "fan": lambda: self.draw_fan_out(depth - 1, in_loop=in_loop),
        }
        return document | inside[kind]()

    def draw_working_step(self) -> Json:
        retry = {"retry": 1, "then": self.draw(st.sampled_from(["fail", "skip"]))}
        retries = {"on_error": retry} if self.one_in(6) else {}
        return {"type": "api_call", "url": "https://example.com/", **retries}

    def draw_conditional(self, depth: int, earlier_ids: Sequence[str], *, in_loop: bool) -> Json:
        otherwise = {"otherwise": self.draw_sequence(depth, 2, in_loop=in_loop)} if self.one_in(2) else {}
        return {
            "type": "conditional",
            "condition": self.draw_condition(earlier_ids, in_loop=in_loop),
            "then": self.draw_sequence(depth, 2, in_loop=in_loop),
            **otherwise,
        }

    def draw_loop(self, depth: int) -> Json:
        steps = self.draw_sequence(depth, 2, in_loop=True)
        inside = [inner["id"] for inner in steps if inner["type"] == "api_call"]
        breaks = {"break_condition": self.draw_condition(inside, in_loop=True)} if self.one_in(2) else {}
        return {"type": "loop", "steps": steps, "max_iterations": self.draw(st.integers(1, 3)), **breaks}

    def draw_fan_out(self, depth: int, *, in_loop: bool) -> Json:
        fan: Json = {"type": "fan_out_fan_in"}
        if self.one_in(2):
            fan |= {"for_each": "input.items", "max_items": 5}
            fan["fan_out_steps"] = self.draw_sequence(depth, 2, in_loop=in_loop)
        else:
            fan["fan_out_steps"] = self.draw_parallel(depth, 2, in_loop=in_loop)
        if self.one_in(2):
            fan["fan_in_steps"] = self.draw_sequence(depth, 2, in_loop=in_loop)
        return fan


@st.composite
def definitions(draw: st.DrawFn) -> Json:
    """Draw definitions with all patterns, nested up to three levels deep."""
    inputs = {"items": {"type": "array"}, "none": {"type": "string", "required": False}}
    return {
        "name": "generated",
        "inputs": inputs,
        "steps": DefinitionStrategy(draw).draw_sequence(3, 3, in_loop=False),
    }


def read_working_results(definition: Definition, results: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    outline = build_outline(definition)
    return {
        key: (record["status"], record["output"])
        for key, record in results.items()
        if not is_pattern(outline[parse_step_id(key)].step)
    }


@given(document=definitions(), data=st.data())
@settings(max_examples=examples(60), deadline=None)
async def test_a_compiled_workflow_behaves_like_a_plain_interpreter(
    document: Json, data: st.DataObject
) -> None:
    definition = read_definition(document)
    steps = sorted(step for step, entry in build_outline(definition).items() if not is_pattern(entry.step))
    failing = data.draw(st.sets(st.sampled_from(steps), max_size=2))
    items = data.draw(st.integers(1, 3))
    expected = Interpreter(failing, items)
    status = expected.run(definition)
    api = FakeApi(failing)
    crash = data.draw(st.none() | st.integers(1, 6))
    calls = count(1)

    def crash_once(_: Any) -> None:
        if next(calls) == crash:
            raise RuntimeError("power cut")

    api.before = crash_once
    wave = data.draw(st.sampled_from([1, 2, 500]))
    graph = compile_workflow(definition, build_engine(api, wave=wave), InMemorySaver())
    begin: Any = {"input": {"items": [{} for _ in range(items)], "none": None}}
    try:
        output = await graph.ainvoke(begin, THREAD)
    except RuntimeError:
        output = await graph.ainvoke(None, THREAD)
    results = (await graph.aget_state(THREAD)).values["results"]

    assert output["status"] == status
    assert read_working_results(definition, results) == expected.records
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
    finished = {
        key for key, (status, _) in read_working_results(definition, before).items() if status == "succeeded"
    }
    calls_before = dict(api.calls)
    recovery = await retry(graph, THREAD, definition)
    output = await graph.ainvoke(recovery.input, THREAD)

    assert output["status"] == "succeeded"
    repeated = {key for key in finished if api.calls[f"w:{key}"] != calls_before[f"w:{key}"]}
    assert repeated == set(), "a finished step ran again"
