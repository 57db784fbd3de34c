"""What a run's thoughts and actions come to: observations, faults, and the answer of an incomplete run."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage

from core.models import is_truncated
from core.models.echoes import ECHO_FAULT, find_echo
from core.texts import make_storable
from nodes.react.state import Action, ReactState, ReasonIncomplete, TraceEntry
from nodes.react.transcript import split_turns

# The run ends when a tool was unavailable in this many iterations since it last worked.
MAX_UNAVAILABLE = 3

_REASON_TEXTS: Mapping[ReasonIncomplete, str] = {
    "max_iterations_reached": "the limit of steps was reached",
    "model_reply_unreadable": "the model's replies could not be read",
    "model_refused": "the model's provider declined to answer",
    "needs_model": "it needs a language model",
    "tool_unavailable": "a system that is needed did not answer",
    "task_failed": "the task could not be carried out",
}


def find_reply_fault(reply: AIMessage) -> str | None:
    """Return why a thought cannot be used, in words for the model; ``None`` if it can."""
    if reply.invalid_tool_calls:
        invalid = reply.invalid_tool_calls[0]
        return f"the arguments of the call to {invalid.get('name')!r} are not valid JSON"
    if is_truncated(reply):
        return "it was cut at the output limit: be shorter"
    if not reply.tool_calls and not make_storable(reply.text).strip():
        return "it was empty: call a tool, or answer in words"
    if not reply.tool_calls and find_echo(reply.text):
        return ECHO_FAULT
    return None


def record_observations(state: ReactState) -> list[TraceEntry]:
    """Return a trace entry for each call of the last thought, in the order of the calls."""
    _, turn = split_turns(state)
    thought = next(message for message in reversed(turn) if isinstance(message, AIMessage))
    results = {message.tool_call_id: message for message in turn if isinstance(message, ToolMessage)}
    return [
        TraceEntry(
            iteration=state["iterations"],
            thought=thought.text,
            action=Action(tool=call["name"], args=call["args"]),
            observation=results[call["id"] or ""].artifact,
            reflection=None,
        )
        for call in thought.tool_calls
    ]


def list_results(trace: Sequence[TraceEntry]) -> list[tuple[str, Any]]:
    """Return the tool and the result of each action that succeeded, in order."""
    return [
        (entry["action"]["tool"], entry["observation"].get("result"))
        for entry in trace
        if entry["action"] and entry["observation"] and entry["observation"]["success"]
    ]


def list_claims(trace: Sequence[TraceEntry]) -> list[str]:
    """Return the ids that the last reflection says the answer rests on."""
    return list((trace[-1]["reflection"] or {}).get("sources", ())) if trace else []


def find_unavailable_tool(trace: Sequence[TraceEntry]) -> str | None:
    """Return the tool that was unavailable in :data:`MAX_UNAVAILABLE` iterations, if there is one."""
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


def find_failure_reason(trace: Sequence[TraceEntry]) -> ReasonIncomplete | None:
    """Return why a run whose every action failed is no success; ``None`` if an action succeeded."""
    observations = [entry["observation"] for entry in trace if entry["observation"]]
    if not observations or any(observation["success"] for observation in observations):
        return None
    kinds = {observation["error"]["kind"] for observation in observations}
    return "tool_unavailable" if "unavailable" in kinds else "task_failed"


def build_incomplete_update(trace: list[TraceEntry], reason: ReasonIncomplete, detail: str) -> dict[str, Any]:
    """Return the update that ends a run without success, with the best answer so far.

    Args:
        trace: The run's trace.
        reason: Why it ends.
        detail: The cause in a few words.
    """
    best = _find_best_answer(trace)
    answer = f"I could not finish this: {_REASON_TEXTS[reason]} ({detail})."
    return {
        "trace": trace,
        "success": False,
        "final_answer": f"{answer} So far: {best}" if best else answer,
        "reason_incomplete": reason,
        "unreadable": None,
    }


def _find_best_answer(trace: Sequence[TraceEntry]) -> str:
    """Return the latest answer of a reflection; thoughts and reasoning are private."""
    answers = (
        str((entry["reflection"] or {}).get("final_answer") or "").strip() for entry in reversed(trace)
    )
    return next(filter(None, answers), "")
