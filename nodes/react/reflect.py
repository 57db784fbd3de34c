"""Observation and reflection: what the actions brought, and whether that ends the run."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelRefused
from core.texts import make_storable
from nodes.deps import Deps, Node, get_run_context
from nodes.react.endings import ended
from nodes.react.state import Action, ReactState, Reflection, TraceEntry
from nodes.react.transcript import build_transcript, split_turns
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_structured

TEMPERATURE = 0.1
# A tool that was unavailable in this many iterations since it last worked ends the run.
MAX_UNAVAILABLE = 3

Next: TypeAlias = Command[Literal["think", "finish"]]


def reflect(deps: Deps) -> Node[ReactState, Next]:
    """Node: record the observations, reflect on them where that is set, and go on or end."""
    system = load_prompt("react_reflection")
    question = load_prompt("react_reflection_question")

    async def reflect(state: ReactState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        entries = observations(state)
        if not _reflects(state, entries):
            return _go_on(state, entries)
        try:
            judgement = await ask_structured(
                deps.models,
                [*build_transcript(state, add_locale(system, context.locale)), HumanMessage(question)],
                Reflection,
                temperature=TEMPERATURE,
                model=context.model,
            )
        except ModelRefused as refusal:
            return _end(state, entries, "model_refused", refusal.message)
        if judgement is None:
            return _end(state, entries, "model_reply_unreadable", "the reflection could not be read")
        return _follow(
            state, [{**entry, "reflection": judgement.model_dump()} for entry in entries], judgement
        )

    return reflect


def observations(state: ReactState) -> list[TraceEntry]:
    """A trace entry for each call of the last thought, in the order they were asked for."""
    _, turn = split_turns(state)
    thought = _last_thought(turn)
    replies = {message.tool_call_id: message for message in turn if isinstance(message, ToolMessage)}
    return [
        TraceEntry(
            iteration=state["iterations"],
            thought=thought.text,
            action=Action(tool=call["name"], args=call["args"]),
            observation=replies[call["id"] or ""].artifact,
            reflection=None,
        )
        for call in thought.tool_calls
    ]


def _last_thought(turn: Sequence[AnyMessage]) -> AIMessage:
    return next(message for message in reversed(turn) if isinstance(message, AIMessage))


def _reflects(state: ReactState, entries: Sequence[TraceEntry]) -> bool:
    if state["reflect_when"] == "on_error":
        return any(entry["observation"] and not entry["observation"]["success"] for entry in entries)
    return state["reflect_when"] == "always"


def _follow(state: ReactState, entries: list[TraceEntry], judgement: Reflection) -> Next:
    answer = make_storable(judgement.final_answer or "").strip()
    if not judgement.task_complete or not answer:
        return _go_on(state, entries)
    update = {
        "trace": [*state["trace"], *entries],
        "success": judgement.success,
        "final_answer": answer,
        "reason_incomplete": None if judgement.success else "task_failed",
    }
    return Command(goto="finish", update=update)


def _go_on(state: ReactState, entries: list[TraceEntry]) -> Next:
    trace = [*state["trace"], *entries]
    if tool := _given_up(trace):
        return _end(state, entries, "tool_unavailable", f"{tool} stayed unavailable")
    if state["iterations"] >= state["iteration_limit"]:
        return _end(state, entries, "max_iterations_reached", f"{state['iterations']} iterations were used")
    return Command(goto="think", update={"trace": trace})


def _given_up(trace: Sequence[TraceEntry]) -> str | None:
    """The tool that stayed unavailable, if there is one."""
    iterations: dict[str, set[int]] = {}
    for entry in trace:
        action, observation = entry["action"], entry["observation"]
        if not action or not observation:
            continue
        if observation["success"]:
            iterations.pop(action["tool"], None)
        elif observation["error"]["kind"] == "unavailable":
            iterations.setdefault(action["tool"], set()).add(entry["iteration"])
    return next((tool for tool, seen in iterations.items() if len(seen) >= MAX_UNAVAILABLE), None)


def _end(state: ReactState, entries: list[TraceEntry], reason: Any, detail: str) -> Next:
    trace = [*state["trace"], *entries]
    return Command(goto="finish", update=ended({**state, "trace": trace}, reason, detail=detail))
