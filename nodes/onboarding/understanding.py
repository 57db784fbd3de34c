"""What a reply changes in a journey."""

from typing import Any, Literal, TypeAlias

from nodes.onboarding.journey import find_next_question
from nodes.onboarding.replies import Reading
from nodes.onboarding.state import PROFILE, Handoff, OnboardingState, Outcome, Question, Team
from nodes.onboarding.texts import TEXTS

Next: TypeAlias = Literal["answer", "hand_over", "pause", "complete", "sync"]

# Unusable replies in a row after which a person helps.
MOST_MISSES = 2

_REJECTED: dict[Question, tuple[Team, str]] = {
    "connected": ("technical_support", "the integration does not work"),
    "success": ("customer_success", "the customer cannot do yet what they came for"),
}


def understood(state: OnboardingState, reading: Reading) -> tuple[dict[str, Any], Next]:
    """The update a reply makes, and the next step.

    Whatever the reply is for, what it says of the customer is kept.
    """
    question = state["question"]
    given = _given(reading)
    outcomes = dict(state["outcomes"])
    outcomes.update({name: Outcome(status="given", reason="") for name in given})
    profile: dict[str, Any] = dict(state["profile"])
    profile.update({name: given[name] for name in PROFILE if name in given})
    update: dict[str, Any] = {"profile": profile, "outcomes": outcomes, "reply": "", "misses": 0}
    if "integration" in given:
        update["integration"] = given["integration"]
    if handoff := _wanted(reading, question):
        return {**update, "handoff": handoff}, "hand_over"
    match reading.intent:
        case "later" | "no":
            return update, "pause"
        case "question":
            return update, "answer"
        case "yes" if question is not None:
            outcomes[question] = Outcome(status="confirmed", reason="")
        case "skip" if question is not None:
            _skip(outcomes, question)
        case _ if question is not None and not given:
            return _missed(state, update)
    return update, "sync" if find_next_question(outcomes) else "complete"


def _given(reading: Reading) -> dict[Question, int | str]:
    """What the reply says: 0 and the empty text say nothing."""
    names: tuple[Question, ...] = (*PROFILE, "integration")
    return {name: value for name in names if (value := getattr(reading, name))}


def _skip(outcomes: dict[Question, Outcome], question: Question) -> None:
    outcomes[question] = Outcome(status="skipped", reason="the customer skipped it")
    if question == "integration":
        outcomes["connected"] = Outcome(status="skipped", reason="there is nothing to connect")


def _missed(state: OnboardingState, update: dict[str, Any]) -> tuple[dict[str, Any], Next]:
    misses = state["misses"] + 1
    update["misses"] = misses
    if misses >= MOST_MISSES:
        reason = f"{misses} replies in a row to the question of {state['question']} could not be used"
        return {**update, "handoff": _handoff("customer_success", reason)}, "hand_over"
    if misses > 0:
        update["said"] = [*state["said"], TEXTS[state["language"]].unusable]
    return update, "sync"


def _wanted(reading: Reading, question: Question | None) -> Handoff | None:
    """The hand-over that a reply asks for or calls for."""
    if reading.intent == "handover":
        return _handoff("customer_success", "the customer asked for a person")
    if reading.intent == "no" and question in _REJECTED:
        return _handoff(*_REJECTED[question])
    return None


def _handoff(team: Team, reason: str) -> Handoff:
    return Handoff(required=True, team=team, reason=reason)
