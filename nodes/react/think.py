"""Thought: a model call with the tools bound."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from langchain_core.messages import AIMessage
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from core.context import Context
from core.errors import ModelRefused
from core.models import is_truncated
from core.texts import make_storable
from nodes.deps import Deps, Node, get_run_context
from nodes.react.endings import ended
from nodes.react.state import ActInput, ReactState, ReasonIncomplete, TraceEntry
from nodes.react.transcript import build_transcript
from nodes.shared.agent import select_tools
from nodes.shared.prompts import add_locale, load_prompt

Next: TypeAlias = Command[Literal["act", "think", "finish"]]


def think(deps: Deps) -> Node[ReactState, Next]:
    """Node: ask for the next thought and go where it leads."""
    system = load_prompt("react")

    async def think(state: ReactState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        try:
            reply = await deps.models.reply(
                build_transcript(state, add_locale(system, context.locale)),
                tools=tuple(select_tools(deps.tools, state["allowed_tools"]).values()),
                temperature=state["warmth"],
                model=context.model,
            )
        except ModelRefused as refusal:
            return Command(goto="finish", update=ended(state, "model_refused", detail=refusal.message))
        if fault := _fault(reply):
            return _tell_back_once(state, fault)
        reply = _with_own_ids(reply)
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
    if is_truncated(reply):
        return "it was cut at the output limit: be shorter"
    if not reply.tool_calls and not make_storable(reply.text).strip():
        return "it was empty: call a tool, or answer in words"
    return None


def _tell_back_once(state: ReactState, fault: str) -> Next:
    if state["unreadable"]:
        return Command(goto="finish", update=ended(state, "model_reply_unreadable", detail=fault))
    return Command(goto="think", update={"unreadable": fault})


def _with_own_ids(reply: AIMessage) -> AIMessage:
    """The reply with an id of its own for each call: its observation and its key are found by it."""
    taken: set[str] = set()
    calls = []
    for call in reply.tool_calls:
        call_id = call["id"] if call["id"] and call["id"] not in taken else f"call-{uuid4()}"
        taken.add(call_id)
        calls.append({**call, "id": call_id})
    return reply if calls == reply.tool_calls else reply.model_copy(update={"tool_calls": calls})


def _calls(reply: AIMessage, state: ReactState) -> list[ActInput]:
    return [
        ActInput(
            call=call,
            message_id=reply.id or "",
            contact_id=state["contact_id"],
            allowed_tools=state["allowed_tools"],
            # A thread begun before there were strategies has none.
            strategy=state.get("strategy", "general"),
        )
        for call in reply.tool_calls
    ]


def _answered(reply: AIMessage, state: ReactState) -> dict[str, Any]:
    """The thought is the answer. It is no success when every action of the run failed."""
    reason = _why_all_failed(state["trace"])
    entry = TraceEntry(
        iteration=state["iterations"] + 1, thought=reply.text, action=None, observation=None, reflection=None
    )
    return {
        "trace": [*state["trace"], entry],
        "success": reason is None,
        "final_answer": reply.text,
        "reason_incomplete": reason,
    }


def _why_all_failed(trace: Sequence[TraceEntry]) -> ReasonIncomplete | None:
    observed = [entry["observation"] for entry in trace if entry["observation"]]
    if not observed or any(observation["success"] for observation in observed):
        return None
    kinds = {observation["error"]["kind"] for observation in observed}
    return "tool_unavailable" if "unavailable" in kinds else "task_failed"
