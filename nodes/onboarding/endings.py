"""The ways a session ends; each leaves the CRM something to know."""

from datetime import UTC, datetime, timedelta
from typing import Any

from langgraph.runtime import Runtime

from core.context import Context
from nodes.onboarding.outbox import queued
from nodes.onboarding.state import OnboardingState
from nodes.onboarding.summary import summary_of
from nodes.onboarding.texts import TEXTS

FOLLOW_UP_AFTER_SUCCESS = timedelta(days=7)
FOLLOW_UP_AFTER_PAUSE = timedelta(days=3)


async def hand_over(state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: a person of the company takes over."""
    ended: OnboardingState = {**state, "status": "handed_over"}
    body = {
        "team": state["handoff"]["team"] or "customer_success",
        "reason": state["handoff"]["reason"],
        "summary": summary_of(ended),
    }
    said = [*state["said"], TEXTS[state["language"]].handed_over]
    return {"status": "handed_over", "said": said, **queued(state, runtime, "handoff", body)}


async def pause(state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: the customer wants to go on later; somebody looks after them if they do not."""
    ended: OnboardingState = {**state, "status": "paused"}
    body = _follow_up("Onboarding paused", ended, FOLLOW_UP_AFTER_PAUSE)
    said = [*state["said"], TEXTS[state["language"]].paused]
    return {"status": "paused", "said": said, **queued(state, runtime, "follow_up", body)}


async def complete(state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: the last question has its outcome; a customer who confirmed success is followed up."""
    ended: OnboardingState = {**state, "status": "completed"}
    texts = TEXTS[state["language"]]
    if state["outcomes"]["success"]["status"] != "confirmed":
        return {"status": "completed", "said": [*state["said"], texts.completed]}
    body = _follow_up("Onboarding completed", ended, FOLLOW_UP_AFTER_SUCCESS)
    said = [*state["said"], texts.completed_followed_up]
    return {"status": "completed", "said": said, **queued(state, runtime, "follow_up", body)}


def _follow_up(subject: str, ended: OnboardingState, after: timedelta) -> dict[str, str | int]:
    due_at = (datetime.now(UTC) + after).isoformat(timespec="seconds")
    return {"due_at": due_at, "subject": subject, "note": summary_of(ended)}
