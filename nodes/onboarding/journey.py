"""The onboarding journey: its steps, what a reply changes, the next node, and the changes for the CRM."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from langgraph.runtime import Runtime

from core.context import Context
from core.errors import CrmError, CrmUnavailable, InvalidRequest
from core.logging import get_logger
from nodes.deps import get_thread_id
from nodes.onboarding.replies import Reading
from nodes.onboarding.state import (
    NO_HANDOFF,
    PROFILE,
    QUESTIONS,
    CrmWrite,
    Customer,
    Handoff,
    OnboardingState,
    Outcome,
    Presented,
    Profile,
    Question,
    Step,
    StepName,
    StepStatus,
    Team,
)
from nodes.onboarding.texts import TEXTS
from tools.crm.client import CrmClient
from tools.crm.models import CustomerProfile
from tools.execution import derive_idempotency_key

log = get_logger(__name__)

NextNode: TypeAlias = Literal["welcome", "read", "tour", "guide", "start_task", "ask", "finish"]
NodeAfterReply: TypeAlias = Literal["answer", "help_out", "hand_over", "pause", "complete", "sync"]

# The node that presents something before a question is asked, and its name among what was presented.
_PRESENTED_BEFORE: Mapping[Question, tuple[NextNode, Presented]] = {
    "tour": ("tour", "tour"),
    "connected": ("guide", "guide"),
    "success": ("start_task", "first_task"),
}
# What the customer wants, in their words; the CRM's profile has no field for it.
WISHES: Final[tuple[Literal["integration", "first_task"], ...]] = ("integration", "first_task")
# Unusable replies in a row after which a person helps.
MAX_MISSES = 2

_QUESTIONS_OF_STEP: Mapping[StepName, tuple[Question, ...]] = {
    "profile": PROFILE,
    "tour": ("tour",),
    "integration": ("integration", "connected"),
    "first_task": ("first_task",),
    "success": ("success",),
}
# A first "no" to these is answered with help; a second one calls a person.
_HANDOFF_AFTER_NO: Mapping[Question, tuple[Team, str]] = {
    "connected": ("technical_support", "the integration does not work"),
    "success": ("customer_success", "the customer cannot do yet what they came for"),
}


def start_journey(contact_id: str) -> dict[str, Any]:
    """Return the update that starts a journey."""
    return {
        "customer": Customer(id=contact_id, name="", loaded=False),
        "profile": Profile(company_size=None, industry=None, use_case=None, team_size=None),
        "integration": "",
        "first_task": "",
        "outcomes": {},
        "presented": [],
        "paragraphs": [],
        "question": None,
        "question_text": "",
        "reply": "",
        "misses": 0,
        "outbox": [],
        "write_count": 0,
        "outage_announced": False,
        "status": "in_progress",
        "steps": build_steps({}, welcomed=False),
        "handoff": NO_HANDOFF,
        "unsaved": [],
        "summary": "",
    }


def continue_journey(state: OnboardingState) -> dict[str, Any]:
    """Return the update that continues the thread's journey with a new run.

    A paused journey continues; one that has ended stays as it is.

    Raises:
        InvalidRequest: The thread holds the journey of another contact.
    """
    customer = state["customer"]
    if customer["id"] != state["contact_id"]:
        raise InvalidRequest(
            "the thread holds the onboarding of another contact; begin a new thread for this one",
            details={"contact_id": state["contact_id"]},
        )
    texts = TEXTS[state["language"]]
    if state["status"] == "completed":
        return {"status": "completed", "paragraphs": [texts.already_completed]}
    if state["status"] == "handed_over":
        return {"status": "handed_over", "paragraphs": [texts.already_handed_over]}
    # The CRM's record is read again, because others may have completed it.
    update: dict[str, Any] = {
        "status": "in_progress",
        "summary": "",
        "customer": {**customer, "loaded": False},
    }
    if state["status"] == "paused":
        # The first message after a pause may be a mere greeting.
        update["misses"] = -1
        update["paragraphs"] = [*state["paragraphs"], texts.welcome_back]
    return update


def find_next_question(outcomes: Mapping[Question, Outcome]) -> Question | None:
    """Return the first question without an outcome: a question with one is never asked again."""
    return next((question for question in QUESTIONS if question not in outcomes), None)


def find_next_node(state: OnboardingState) -> NextNode:
    """Return the node for what the customer was not told yet or has written, else for the next question."""
    question = find_next_question(state["outcomes"])
    if "welcome" not in state["presented"]:
        return "welcome"
    if state["reply"]:
        return "read"
    if state["status"] != "in_progress" or question is None:
        return "finish"
    node = _PRESENTED_BEFORE.get(question)
    is_due = question != "success" or state["first_task"]
    return node[0] if node and is_due and node[1] not in state["presented"] else "ask"


def build_steps(outcomes: Mapping[Question, Outcome], *, welcomed: bool) -> list[Step]:
    """Return the steps of the journey with their status."""
    current = find_next_question(outcomes)
    welcome = Step(name="welcome", status="done" if welcomed else "pending", reason="")
    return [
        welcome,
        *(_build_step(name, questions, outcomes, current) for name, questions in _QUESTIONS_OF_STEP.items()),
    ]


def _build_step(
    name: StepName,
    questions: tuple[Question, ...],
    outcomes: Mapping[Question, Outcome],
    current: Question | None,
) -> Step:
    settled = {question: outcomes[question] for question in questions if question in outcomes}
    reasons = [
        f"{question}: {outcome['reason']}" for question, outcome in settled.items() if outcome["reason"]
    ]
    status: StepStatus = "waiting" if current in questions else "pending"
    if len(settled) == len(questions):
        not_asked = all(outcome["status"] in {"skipped", "known"} for outcome in settled.values())
        status = "skipped" if not_asked else "done"
    return Step(name=name, status=status, reason="; ".join(reasons))


def build_summary(state: OnboardingState) -> str:
    """Return the session in words: its status, what is known of the company, and the steps."""
    texts = TEXTS[state["language"]]
    known = [
        f"{texts.fields[name]}: {state['profile'][name]}"
        for name in PROFILE
        if state["profile"][name] is not None
    ]
    known += [f"{texts.fields[name]}: {state[name]}" for name in WISHES if state[name]]
    steps = build_steps(state["outcomes"], welcomed="welcome" in state["presented"])
    return texts.summary.format(
        status=texts.statuses[state["status"]],
        profile=f"{'; '.join(known)}." if known else texts.nothing_known,
        steps=", ".join(
            f"{texts.steps[step['name']]} {texts.step_statuses[step['status']]}" for step in steps
        ),
    )


def build_follow_up(subject: str, ended: OnboardingState, after: timedelta) -> dict[str, str | int]:
    """Return the body of a follow-up for the CRM, with the summary as its note."""
    due_at = (datetime.now(UTC) + after).isoformat(timespec="seconds")
    return {"due_at": due_at, "subject": subject, "note": build_summary(ended)}


def apply_reply(state: OnboardingState, reading: Reading) -> tuple[dict[str, Any], NodeAfterReply]:
    """Return the update a reply makes, and the next node.

    What the reply says of the customer is kept, whatever its intent.
    """
    question = state["question"]
    values = _list_values(reading)
    outcomes = dict(state["outcomes"])
    outcomes.update({name: Outcome(status="answered", reason="") for name in values})
    profile: dict[str, Any] = dict(state["profile"])
    profile.update({name: values[name] for name in PROFILE if name in values})
    update: dict[str, Any] = {"profile": profile, "outcomes": outcomes, "reply": "", "misses": 0}
    update |= {name: values[name] for name in WISHES if name in values}
    if handoff := _find_handoff(reading, state):
        return {**update, "handoff": handoff}, "hand_over"
    match reading.intent:
        case "no" if question in _HANDOFF_AFTER_NO:
            return update, "help_out"
        case "later" | "no":
            return update, "pause"
        case "question":
            return update, "answer"
        case "yes" if question is not None:
            outcomes[question] = Outcome(status="confirmed", reason="")
        case "skip" if question is not None:
            outcomes[question] = Outcome(status="skipped", reason="the customer skipped it")
            if question == "integration":
                outcomes["connected"] = Outcome(status="skipped", reason="there is nothing to connect")
        case _ if question is not None and not values:
            return _count_miss(state, update)
    return update, "sync" if find_next_question(outcomes) else "complete"


def _list_values(reading: Reading) -> dict[Question, int | str]:
    """Return what the reply says; 0 and the empty text say nothing."""
    names: tuple[Question, ...] = (*PROFILE, *WISHES)
    return {name: value for name in names if (value := getattr(reading, name))}


def _count_miss(state: OnboardingState, update: dict[str, Any]) -> tuple[dict[str, Any], NodeAfterReply]:
    misses = state["misses"] + 1
    update["misses"] = misses
    if misses >= MAX_MISSES:
        reason = f"{misses} replies in a row to the question of {state['question']} could not be used"
        return {**update, "handoff": _build_handoff("customer_success", reason)}, "hand_over"
    if misses > 0:
        update["paragraphs"] = [*state["paragraphs"], TEXTS[state["language"]].unusable]
    return update, "sync"


def _find_handoff(reading: Reading, state: OnboardingState) -> Handoff | None:
    """Return the hand-off that the customer asks for, or that a second "no" to the question calls for."""
    question = state["question"]
    if reading.intent == "handover":
        return _build_handoff("customer_success", "the customer asked for a person")
    if (
        reading.intent == "no"
        and question is not None
        and question in _HANDOFF_AFTER_NO
        and name_help(question) in state["presented"]
    ):
        return build_handoff_after_no(question)
    return None


def build_handoff_after_no(question: Question) -> Handoff:
    """Return the hand-off for a "no" to the question that no help article answers."""
    return _build_handoff(*_HANDOFF_AFTER_NO[question])


def name_help(question: Question) -> Presented:
    """Return under which name the help after a "no" to the question is presented."""
    return "help_connected" if question == "connected" else "help_success"


def _build_handoff(team: Team, reason: str) -> Handoff:
    return Handoff(required=True, team=team, reason=reason)


def enqueue_write(
    state: OnboardingState,
    runtime: Runtime[Context],
    kind: Literal["profile", "follow_up", "handoff"],
    body: Mapping[str, str | int],
) -> dict[str, Any]:
    """Return the update that puts a change for the CRM into the outbox.

    Its idempotency key is created here, one node before it is used, so that a node that runs again after a
    crash finds the same key.
    """
    key = derive_idempotency_key(get_thread_id(runtime), f"onboarding {kind}", str(state["write_count"]))
    write = CrmWrite(kind=kind, key=key, body=dict(body))
    return {"outbox": [*state["outbox"], write], "write_count": state["write_count"] + 1}


async def deliver_outbox(crm: CrmClient, state: OnboardingState) -> list[CrmWrite]:
    """Make the queued changes, each once per key, and return those that are left.

    A change that is refused does not block those behind it.
    """
    left: list[CrmWrite] = []
    for index, write in enumerate(state["outbox"]):
        try:
            await _deliver(crm, state["customer"]["id"], write)
        except CrmUnavailable:
            return [*left, *state["outbox"][index:]]
        except CrmError as error:
            log.warning("onboarding_write_refused", kind=write["kind"], key=write["key"], error=str(error))
            left.append(write)
    return left


async def _deliver(crm: CrmClient, contact_id: str, write: CrmWrite) -> None:
    body: dict[str, Any] = dict(write["body"])
    match write["kind"]:
        case "profile":
            await crm.update_profile(contact_id, CustomerProfile(**body), key=write["key"])
        case "follow_up":
            await crm.schedule_follow_up(contact_id, **body, key=write["key"])
        case "handoff":
            await crm.hand_over(contact_id, **body, key=write["key"])


def describe_write(write: CrmWrite) -> str:
    """Return a change in words, for a person who makes it by hand."""
    body = "; ".join(f"{name}: {value}" for name, value in write["body"].items())
    return f"{write['kind']} ({body})"
