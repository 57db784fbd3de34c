"""What the audit says of people's decisions."""

from collections.abc import Mapping
from typing import Any, Final

from langgraph.types import Command, Interrupt, StateSnapshot

from service.audit.trail import Entry

DECISIONS: Final = frozenset({"approve", "edit", "reject"})


def decisions(graph: str, given: Any, state: StateSnapshot) -> list[Entry]:
    """An entry for each question of the company's that an input answers.

    Args:
        graph: The graph that asks.
        given: A run's input.
        state: The thread's latest checkpoint.
    """
    if not isinstance(given, Command) or given.resume is None:
        return []
    answers = _answers(given.resume, [pending.id for pending in state.interrupts])
    return [
        Entry(
            action="approval",
            tool=_tool(pending) or graph,
            arguments={"answer": answers[pending.id]},
            outcome=_decision(answers[pending.id]),
            details={"graph": graph, "interrupt_id": pending.id},
        )
        for pending in state.interrupts
        if pending.id in answers and not is_for_others(pending.value)
    ]


def is_for_others(asked: Any) -> bool:
    """Whether nobody of the company decides it: a customer is asked, or a signal or a time is waited for."""
    return isinstance(asked, dict) and asked.get("kind") in {"question", "signal", "timer"}


def _answers(resume: Any, pending: list[str]) -> Mapping[str, Any]:
    """The answers by question: they name it, or there is one question and one answer."""
    if isinstance(resume, Mapping) and resume.keys() & set(pending):
        return resume
    return dict.fromkeys(pending, resume)


def _tool(pending: Interrupt) -> str:
    named = pending.value.get("tool") if isinstance(pending.value, dict) else None
    return named if isinstance(named, str) else ""


def _decision(answer: Any) -> str:
    decided = answer.get("decision") if isinstance(answer, Mapping) else None
    return decided if decided in DECISIONS else "answered"
