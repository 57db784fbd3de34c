"""Thought: a model call with the tools bound."""

from typing import Any, Literal, TypeAlias

from langchain_core.messages import AIMessage
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from core.context import Context
from core.errors import ModelRefused
from nodes.deps import Deps, Node, run_context
from nodes.prompts import prompt
from nodes.react.endings import ended
from nodes.react.state import ActInput, ReactState, TraceEntry
from nodes.react.transcript import transcript

TEMPERATURE = 0.2

Next: TypeAlias = Command[Literal["act", "think", "finish"]]


def think(deps: Deps) -> Node[ReactState, Next]:
    """Node: ask for the next thought and go where it leads."""
    system = prompt("react")
    tools = tuple(deps.tools.values())

    async def think(state: ReactState, *, runtime: Runtime[Context]) -> Next:
        try:
            reply = await deps.models.reply(
                transcript(state, system),
                tools=tools,
                temperature=TEMPERATURE,
                model=run_context(runtime).model,
            )
        except ModelRefused as refusal:
            return Command(goto="finish", update=ended(state, "model_refused", detail=refusal.message))
        if fault := _fault(reply):
            return _tell_back_once(state, fault)
        update: dict[str, Any] = {
            "messages": [reply],
            "iterations": state["iterations"] + 1,
            "unreadable": None,
        }
        if reply.tool_calls:
            return Command(goto=[Send("act", sent) for sent in _calls(reply, state)], update=update)
        return Command(goto="finish", update={**update, **_answered(reply, state)})

    return think


def _fault(reply: AIMessage) -> str | None:
    if reply.invalid_tool_calls:
        bad = reply.invalid_tool_calls[0]
        return f"the arguments of the call to {bad.get('name')!r} are not valid JSON"
    if not reply.tool_calls and not reply.text.strip():
        return "it was empty: call a tool, or answer in words"
    return None


def _tell_back_once(state: ReactState, fault: str) -> Next:
    if state["unreadable"]:
        return Command(goto="finish", update=ended(state, "model_reply_unreadable", detail=fault))
    return Command(goto="think", update={"unreadable": fault})


def _calls(reply: AIMessage, state: ReactState) -> list[ActInput]:
    return [
        ActInput(call=call, message_id=reply.id or "", contact_id=state["contact_id"])
        for call in reply.tool_calls
    ]


def _answered(reply: AIMessage, state: ReactState) -> dict[str, Any]:
    """The thought is the answer. It is no success when every action of the run failed."""
    observed = [entry["observation"] for entry in state["trace"] if entry["observation"]]
    failed = bool(observed) and not any(observation["success"] for observation in observed)
    entry = TraceEntry(
        iteration=state["iterations"] + 1, thought=reply.text, action=None, observation=None, reflection=None
    )
    return {
        "trace": [*state["trace"], entry],
        "success": not failed,
        "final_answer": reply.text,
        "reason_incomplete": "tool_unavailable" if failed else None,
    }
