"""The questions in their order, and the journey's steps as their outcomes tell them."""

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

from nodes.onboarding.state import Outcome, Question, Step, StepName, StepStatus

SizeField: TypeAlias = Literal["company_size", "team_size"]
TextField: TypeAlias = Literal["industry", "use_case"]
ProfileField: TypeAlias = Literal[SizeField, TextField]

QUESTIONS: tuple[Question, ...] = get_args(Question)
SIZES: tuple[SizeField, ...] = get_args(SizeField)
PROFILE: tuple[ProfileField, ...] = ("company_size", "industry", "use_case", "team_size")
# Answered by yes or no; the others by what is asked for.
CONFIRMATIONS: frozenset[Question] = frozenset({"tour", "connected", "success"})

_OF_STEP: Mapping[StepName, tuple[Question, ...]] = {
    "profile": PROFILE,
    "tour": ("tour",),
    "integration": ("integration", "connected"),
    "success": ("success",),
}


def next_question(outcomes: Mapping[Question, Outcome]) -> Question | None:
    """The first question without an outcome: what has one is never asked again."""
    return next((question for question in QUESTIONS if question not in outcomes), None)


def steps_of(outcomes: Mapping[Question, Outcome], *, welcomed: bool) -> list[Step]:
    """The journey as it stands."""
    current = next_question(outcomes)
    welcome = Step(name="welcome", status="done" if welcomed else "pending", reason="")
    return [
        welcome,
        *(_step(name, questions, outcomes, current) for name, questions in _OF_STEP.items()),
    ]


def _step(
    name: StepName,
    questions: tuple[Question, ...],
    outcomes: Mapping[Question, Outcome],
    current: Question | None,
) -> Step:
    kept = {question: outcomes[question] for question in questions if question in outcomes}
    omitted = [outcome["status"] in {"skipped", "known"} for outcome in kept.values()]
    reasons = [f"{question}: {outcome['reason']}" for question, outcome in kept.items() if outcome["reason"]]
    status: StepStatus = "waiting" if current in questions else "pending"
    if len(kept) == len(questions):
        status = "skipped" if all(omitted) else "done"
    return Step(name=name, status=status, reason="; ".join(reasons))
