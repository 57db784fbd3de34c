"""Begin a run: a new journey, or where the thread's journey is."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.errors import InvalidRequest
from nodes.deps import get_run_context
from nodes.onboarding.questions import steps_of
from nodes.onboarding.replies import detect_reply_language
from nodes.onboarding.state import (
    Customer,
    OnboardingState,
    Profile,
    nobody_needed,
)
from nodes.onboarding.texts import TEXTS


async def prepare(state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: open the turn.

    A paused journey goes on; one whose question still waits (its caller chose to begin anew) asks it again,
    or takes the message for its reply. One that has ended stays as it is: what is left of it to save is
    tried again.

    Raises:
        InvalidRequest: The thread holds the journey of another contact.
    """
    message = state.get("message", "").strip()
    update = _continued(state) if _is_begun(state) else _begun(state["contact_id"])
    before = state.get("language", "en")
    update["language"] = detect_reply_language(get_run_context(runtime).locale, message, before)
    if message:
        update["messages"] = [HumanMessage(message, id=str(uuid4()))]
    if update["status"] == "in_progress":
        # One that a run which failed has left unread is not lost.
        update["reply"] = message or state.get("reply", "")
    return update


def _is_begun(state: Mapping[str, object]) -> bool:
    return "customer" in state


def _begun(contact_id: str) -> dict[str, Any]:
    return {
        "customer": Customer(id=contact_id, name="", read=False),
        "profile": Profile(company_size=None, industry=None, use_case=None, team_size=None),
        "integration": "",
        "outcomes": {},
        "told": [],
        "said": [],
        "question": None,
        "asked": "",
        "reply": "",
        "misses": 0,
        "outbox": [],
        "writes": 0,
        "excused": False,
        "status": "in_progress",
        "steps": steps_of({}, welcomed=False),
        "handoff": nobody_needed(),
        "unsaved": [],
        "summary": "",
    }


def _continued(state: OnboardingState) -> dict[str, Any]:
    customer = state["customer"]
    if customer["id"] != state["contact_id"]:
        raise InvalidRequest(
            "the thread holds the onboarding of another contact; begin a new thread for this one",
            details={"contact_id": state["contact_id"]},
        )
    texts = TEXTS[state["language"]]
    if state["status"] == "completed":
        return {"status": "completed", "said": [texts.already_completed]}
    if state["status"] == "handed_over":
        return {"status": "handed_over", "said": [texts.already_handed_over]}
    # What others have entered since is not asked for again.
    update: dict[str, Any] = {"status": "in_progress", "summary": "", "customer": {**customer, "read": False}}
    if state["status"] == "paused":
        # The first message after a pause may be a mere hello.
        update["misses"] = -1
        update["said"] = [*state["said"], texts.welcome_back]
    return update
