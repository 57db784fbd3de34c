"""What the models see: the planner, the agent of a step and the monitor; and the answer of a run.

Notes begin with a bracket. What customers, tools and the CRM say is quoted in them as JSON, so that it cannot
pass for a part of the note.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool

from core.texts import make_storable
from nodes.planning_monitor.schema import PlanStep
from nodes.planning_monitor.state import (
    DependencyResult,
    ExecuteInput,
    PlanningReason,
    PlanningState,
    StepResult,
)
from nodes.shared.citations import Grounding
from nodes.shared.conversation import select_history

# Questions and answers of earlier turns that a planner sees.
HISTORY_MESSAGES = 10
# Characters of a result that is being judged, and of one that was judged before.
RESULT_CHARACTERS = 2_000
OLD_RESULT_CHARACTERS = 400
# Characters of all results a step depends on together, and of each one's task.
DEPENDENCY_CHARACTERS = 8_000
DEPENDENCY_TASK_CHARACTERS = 200
_ANSWER_TASK_CHARACTERS: Final = 120
_ANSWER_DETAIL_CHARACTERS: Final = 1_000

_REASON_TEXTS: Mapping[PlanningReason, str] = {
    "aborted": "the monitor stopped the plan",
    "plan_invalid": "no valid plan could be made",
    "monitor_unreadable": "the monitor's replies could not be read",
    "max_revisions_reached": "the plan was revised as often as it may be",
    "steps_failed": "steps of the plan failed",
    "goal_not_reached": "the steps ran, and the goal was not reached",
    "model_refused": "the model's provider declined to answer",
    "model_unavailable": "the model stopped answering",
    "needs_model": "a plan needs a language model",
}


def add_tool_list(system: str, tools: Mapping[str, BaseTool]) -> str:
    """Append a line on each tool a step may use to a system prompt."""
    lines = [f"- {name}: {tool.description.strip().partition(chr(10))[0]}" for name, tool in tools.items()]
    return "\n".join([system, "", "The tools:", *lines])


def build_planner_messages(state: PlanningState, system: str) -> list[AnyMessage]:
    """Return earlier turns, what is known, the task, and the faults of the last draft."""
    start = next(index for index, message in enumerate(state["messages"]) if message.id == state["turn"])
    return [
        SystemMessage(system),
        *select_history(state["messages"][:start], HISTORY_MESSAGES, state["context"]),
        *_build_input_notes(state),
        HumanMessage(state["task"]),
        *_build_fault_notes(state),
    ]


def build_monitor_messages(state: PlanningState, system: str, question: str) -> list[AnyMessage]:
    """Return what is known, the task, the plan, and the results, those of the last wave in full."""
    return [
        SystemMessage(system),
        *_build_input_notes(state),
        *_build_progress_notes(state),
        HumanMessage(question),
    ]


def build_replanner_messages(state: PlanningState, system: str) -> list[AnyMessage]:
    """Return what the monitor saw, the change it asks for, and the faults of the last draft."""
    judgement, plan = state["judgements"][-1], state["plan"] or {}
    planned = [step["step_id"] for step in plan.get("steps", [])]
    finished = [result["step_id"] for result in state["results"]]
    change = {"adjustment": judgement["adjustment"], "reasoning": judgement["reasoning"]}
    next_number = max([*planned, *finished], default=0) + 1
    return [
        SystemMessage(system),
        *_build_input_notes(state),
        *_build_progress_notes(state),
        _build_note("The monitor asks for this change", change),
        HumanMessage(f"[Numbers] New steps are numbered from {next_number} on."),
        *_build_fault_notes(state),
    ]


def build_step_instruction(task: ExecuteInput, prompt: str) -> str:
    """Return how the agent is to carry out a step."""
    step = PlanStep.model_validate(task["step"])
    parts = [*filter(None, [task["instruction"]]), prompt]
    if step.decision_point:
        parts.append(f"To be decided: {step.decision_point}")
    if task["constraints"]:
        parts.append(_format_list("Constraints:", task["constraints"]))
    return make_storable("\n\n".join(parts))


def build_step_background(task: ExecuteInput) -> str:
    """Return the results a step depends on, within what an agent accepts; empty if there are none."""
    if not task["dependencies"]:
        return ""
    share = DEPENDENCY_CHARACTERS // len(task["dependencies"])
    results = [
        DependencyResult(
            step_id=dependency["step_id"],
            task=shorten(dependency["task"], DEPENDENCY_TASK_CHARACTERS),
            result=shorten(dependency["result"], share),
        )
        for dependency in task["dependencies"]
    ]
    return make_storable(f"Outcomes of the steps before:\n{_to_json(results)}")


def format_answer(state: PlanningState) -> str:
    """Return the run's answer: what was done, and why it ended if it is no success."""
    done = [result for result in state["results"] if result["success"]]
    if state["reason"] is None:
        return done[0]["result"] if len(done) == 1 else _format_results(done)
    detail = shorten(state["detail"], _ANSWER_DETAIL_CHARACTERS).rstrip(".")
    parts = [f"I could not finish this: {_REASON_TEXTS[state['reason']]} ({detail})."]
    if done:
        parts.append(f"This was done:\n\n{_format_results(done)}")
    return "\n\n".join(parts)


def shorten(text: str, limit: int) -> str:
    """Return the text, or its beginning if it is longer than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _format_results(results: Sequence[StepResult]) -> str:
    return "\n".join(
        f"{result['step_id']}. {shorten(result['task'], _ANSWER_TASK_CHARACTERS)} {result['result']}"
        for result in results
    )


def _format_list(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"- {line}" for line in lines)])


def _build_input_notes(state: PlanningState) -> Iterator[HumanMessage]:
    yield _build_note("What the CRM knows of the customer", state["contact"])
    if state["background"]:
        yield _build_note("What else is known", state["background"])
    if state["constraints"]:
        yield HumanMessage(make_storable(_format_list("[Constraints]", state["constraints"])))


def _build_progress_notes(state: PlanningState) -> Iterator[HumanMessage]:
    yield HumanMessage(state["task"])
    yield _build_note("The plan", state["plan"])
    yield _build_note("Results", [_shorten_result(result, state["wave"]) for result in state["results"]])
    yield HumanMessage(f"[Last wave] steps {', '.join(map(str, state['wave']))}")


def _shorten_result(result: StepResult, wave: Sequence[int]) -> dict[str, Any]:
    limit = RESULT_CHARACTERS if result["step_id"] in wave else OLD_RESULT_CHARACTERS
    shown = {name: value for name, value in result.items() if name not in Grounding.__annotations__}
    return {**shown, "result": shorten(result["result"], limit)}


def _build_fault_notes(state: PlanningState) -> Iterator[AnyMessage]:
    if state["faults"]:
        yield AIMessage(_to_json(state["draft"]))
        faults = _format_list("[This does not hold]", state["faults"])
        yield HumanMessage(f"{faults}\nWrite all of it again, with this corrected.")


def _build_note(title: str, value: Any) -> HumanMessage:
    return HumanMessage(f"[{title}] {_to_json(value)}")


def _to_json(value: Any) -> str:
    return make_storable(json.dumps(value, ensure_ascii=False))
