"""What the two judges answer, and what is made of it."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from core.texts import make_storable
from nodes.critique_refine.state import Critique, Scores, Validation

REJECTED_WITHOUT_REASON = "The validator rejected the message without saying why: read every sentence again."


class Review(BaseModel):
    """A critic's judgement of a message to a customer."""

    # The findings come first: points that are given after them follow from them.
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
        description="What must be mended before the message can be sent, each with the words it is about; "
        "empty when there is nothing"
    )
    approved: bool = Field(
        description="Whether the message may be sent as it is: exactly when issues is empty"
    )


def critique_of(review: Review) -> Critique:
    """The review with its total, which is computed: models add up badly, and generously."""
    scores = Scores(
        personalization=review.personalization_score,
        clarity=review.clarity_score,
        tone=review.tone_score,
        effectiveness=review.effectiveness_score,
    )
    return Critique(
        scores=scores,
        total=sum((scores["personalization"], scores["clarity"], scores["tone"], scores["effectiveness"])),
        strengths=_said(review.strengths),
        weaknesses=_said(review.weaknesses),
        improvements=_said(review.improvements),
    )


def validation_of(verdict: Verdict) -> Validation:
    """The verdict; one that contradicts itself is no approval."""
    issues = _said(verdict.issues)
    if not verdict.approved and not issues:
        issues = [REJECTED_WITHOUT_REASON]
    return Validation(approved=not issues, issues=issues)


def _said(points: Sequence[str]) -> list[str]:
    return [said for point in points if (said := make_storable(point).strip())]
