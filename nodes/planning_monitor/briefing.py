"""What the models are shown: who writes a plan, who carries out a step, who judges.

Notes begin with a bracket; what customers, tools and the CRM say stands in them as JSON, so that it cannot
pass for a part of the note.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool

from core.texts import make_storable
from nodes.planning_monitor.schema import PlanStep
from nodes.planning_monitor.state import Before, ExecuteInput, PlanningState, StepResult
from nodes.shared.conversation import select_history

# Messages of earlier turns a planner sees: what was asked and what was answered.
HISTORY_MESSAGES = 10
# Of a result: in full to who judges it, in short afterwards.
RESULT_CHARACTERS = 2_000
OLD_RESULT_CHARACTERS = 400
# Of all the results together that a step is given, and of what each was to do.
BEFORE_CHARACTERS = 8_000
BEFORE_TASK_CHARACTERS = 200


def with_tool_list(system: str, tools: Mapping[str, BaseTool]) -> str:
    """The system prompt, with a line on each tool a step may use."""
    lines = [f"- {name}: {_first_line(tool.description)}" for name, tool in tools.items()]
    return "\n".join([system, "", "The tools:", *lines])


def planner_messages(state: PlanningState, system: str) -> list[AnyMessage]:
    """For a plan: the earlier conversation, what is known, the task, and what was wrong with the last try."""
    return [
        SystemMessage(system),
        *_history(state),
        *_given(state),
        HumanMessage(state["task"]),
        *_told_back(state),
    ]


def monitor_messages(state: PlanningState, system: str, question: str) -> list[AnyMessage]:
    """For a judgement: the task, the plan, the results, the last wave's in full."""
    return [SystemMessage(system), *_given(state), *_progress(state), HumanMessage(question)]


def replanner_messages(state: PlanningState, system: str) -> list[AnyMessage]:
    """For a revision: the same, what is to change, and what was wrong with the last try."""
    judged = state["judgements"][-1]
    used = [*(step["step_id"] for step in _steps(state)), *(each["step_id"] for each in state["results"])]
    wanted = {"adjustment": judged["adjustment"], "reasoning": judged["reasoning"]}
    return [
        SystemMessage(system),
        *_given(state),
        *_progress(state),
        _note("The monitor asks for this change", wanted),
        HumanMessage(f"[Numbers] New steps are numbered from {max(used, default=0) + 1} on."),
        *_told_back(state),
    ]


def step_instruction(sent: ExecuteInput, note: str) -> str:
    """What the agent of a step is told beside its task."""
    step = PlanStep.model_validate(sent["step"])
    parts = [note, *filter(None, [sent["guidance"]]), f"Expected outcome: {step.expected_outcome}"]
    if step.decision_point:
        parts.append(f"To be decided: {step.decision_point}")
    if sent["constraints"]:
        parts.append("\n".join(["Constraints:", *(f"- {one}" for one in sent["constraints"])]))
    return make_storable("\n\n".join(parts))


def step_background(sent: ExecuteInput) -> str:
    """The outcomes of the steps before, within what an agent takes; nothing when there are none."""
    if not sent["before"]:
        return ""
    share = BEFORE_CHARACTERS // len(sent["before"])
    shown = [_before(each, share) for each in sent["before"]]
    return make_storable(f"Outcomes of the steps before:\n{_json(shown)}")


def clipped(text: str, most: int) -> str:
    """The text, or its beginning where it is longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _before(each: Before, most: int) -> Before:
    task = clipped(each["task"], BEFORE_TASK_CHARACTERS)
    return Before(step_id=each["step_id"], task=task, result=clipped(each["result"], most))


def _given(state: PlanningState) -> Iterator[HumanMessage]:
    if state["guidance"]:
        yield HumanMessage(f"[Instruction]\n{state['guidance']}")
    yield _note("What the CRM knows of the customer", state["contact"])
    if state["background"]:
        yield _note("What else is known", state["background"])
    if state["kept_constraints"]:
        yield HumanMessage("\n".join(["[Constraints]", *(f"- {one}" for one in state["kept_constraints"])]))


def _progress(state: PlanningState) -> Iterator[HumanMessage]:
    yield HumanMessage(state["task"])
    yield _note("The plan", state["plan"])
    yield _note("Results", [_shown(result, state["wave"]) for result in state["results"]])
    yield HumanMessage(f"[Last wave] steps {', '.join(map(str, state['wave']))}")


def _shown(result: StepResult, wave: Sequence[int]) -> dict[str, Any]:
    most = RESULT_CHARACTERS if result["step_id"] in wave else OLD_RESULT_CHARACTERS
    return {**result, "result": clipped(result["result"], most)}


def _told_back(state: PlanningState) -> Iterator[AnyMessage]:
    if state["faults"]:
        yield AIMessage(_json(state["draft"]))
        lines = "\n".join(f"- {fault}" for fault in state["faults"])
        yield HumanMessage(f"[This does not hold]\n{lines}\nWrite all of it again, with this mended.")


def _history(state: PlanningState) -> Sequence[AnyMessage]:
    messages = state["messages"]
    start = next(index for index, message in enumerate(messages) if message.id == state["turn"])
    return select_history(messages[:start], HISTORY_MESSAGES, state["context"])


def _steps(state: PlanningState) -> Sequence[Mapping[str, Any]]:
    steps: Sequence[Mapping[str, Any]] = (state["plan"] or {}).get("steps", [])
    return steps


def _note(title: str, value: Any) -> HumanMessage:
    return HumanMessage(f"[{title}] {_json(value)}")


def _json(value: Any) -> str:
    return make_storable(json.dumps(value, ensure_ascii=False))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
