"""What the two judges answer, the versions they judged, and which version is the best."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from core.texts import make_storable
from nodes.critique_refine.state import Critique, Scores, Validation, Version

REJECTED_WITHOUT_REASON = "The validator rejected the message without saying why: read every sentence again."
_WITHOUT_SCORE = -1


class Review(BaseModel):
    """A critic's judgement of a message to a customer."""

    # The findings come first, so that the points after them follow from them.
    strengths: list[str] = Field(description="What is good about the message and has to stay")
    weaknesses: list[str] = Field(description="What keeps the message from doing its work")
    improvements: list[str] = Field(
        description="Specific changes, each one that can be carried out as it is written"
    )
    personalization_score: int = Field(
        ge=0, le=25, description="Whether it speaks to this customer and their situation, from 0 to 25"
    )
    clarity_score: int = Field(
        ge=0, le=25, description="Whether it is understood at the first reading, from 0 to 25"
    )
    tone_score: int = Field(
        ge=0, le=25, description="Whether it sounds right for this customer and occasion, from 0 to 25"
    )
    effectiveness_score: int = Field(
        ge=0, le=25, description="Whether it achieves what the request wants of it, from 0 to 25"
    )


class Verdict(BaseModel):
    """A validator's judgement whether a message may be sent as it is."""

    issues: list[str] = Field(
        description="What must be fixed before the message can be sent, each with the words it is about; "
        "empty when there is nothing"
    )
    approved: bool = Field(
        description="Whether the message may be sent as it is: exactly when issues is empty"
    )


def build_critique(review: Review) -> Critique:
    """Return the review with its total, which is computed because models add up badly and generously."""
    scores = Scores(
        personalization=review.personalization_score,
        clarity=review.clarity_score,
        tone=review.tone_score,
        effectiveness=review.effectiveness_score,
    )
    return Critique(
        scores=scores,
        total=sum((scores["personalization"], scores["clarity"], scores["tone"], scores["effectiveness"])),
        strengths=_clean(review.strengths),
        weaknesses=_clean(review.weaknesses),
        improvements=_clean(review.improvements),
    )


def build_validation(verdict: Verdict) -> Validation:
    """Return the verdict; one that contradicts itself is no approval."""
    issues = _clean(verdict.issues)
    if not verdict.approved and not issues:
        issues = [REJECTED_WITHOUT_REASON]
    return Validation(approved=not issues, issues=issues)


def _clean(points: Sequence[str]) -> list[str]:
    return [text for point in points if (text := make_storable(point).strip())]


def build_version(text: str, cycle: int, critique: Critique | None, validation: Validation | None) -> Version:
    """Return a version with its judgements; ``None`` stands for a judge that failed."""
    return Version(
        cycle=cycle,
        text=text,
        scores=critique["scores"] if critique else None,
        total=critique["total"] if critique else None,
        strengths=critique["strengths"] if critique else [],
        weaknesses=critique["weaknesses"] if critique else [],
        improvements=critique["improvements"] if critique else [],
        validation=validation,
    )


def get_critique(version: Version) -> Critique | None:
    """Return the critique a version holds."""
    if version["scores"] is None or version["total"] is None:
        return None
    return Critique(
        scores=version["scores"],
        total=version["total"],
        strengths=version["strengths"],
        weaknesses=version["weaknesses"],
        improvements=version["improvements"],
    )


def normalise_score(total: int | None) -> float:
    """Convert the critic's 0 to 100 points to 0 to 1; 0 if there are none."""
    return (total or 0) / 100


def select_best(history: Sequence[Version]) -> Version | None:
    """Return the best version: an approved one before one that is not, then the highest total.

    Of equals the latest, because it had the most issues fixed. ``None`` when there is no version.
    """
    return max(reversed(history), key=_rank, default=None)


def _rank(version: Version) -> tuple[bool, int]:
    validation, total = version["validation"], version["total"]
    approved = validation is not None and validation["approved"]
    return approved, _WITHOUT_SCORE if total is None else total
