"""The versions of a message, and which of them is the best."""

from collections.abc import Sequence

from nodes.critique_refine.state import Critique, Validation, Version

_WITHOUT_SCORE = -1


def version(text: str, cycle: int, critique: Critique | None, validation: Validation | None) -> Version:
    """A version with its judgements; a judge that failed left none."""
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


def critique_in(judged: Version) -> Critique | None:
    """The critique a version holds."""
    if judged["scores"] is None or judged["total"] is None:
        return None
    return Critique(
        scores=judged["scores"],
        total=judged["total"],
        strengths=judged["strengths"],
        weaknesses=judged["weaknesses"],
        improvements=judged["improvements"],
    )


def score(total: int | None) -> float:
    """The critic's 0 to 100 as 0 to 1; 0 where there is none."""
    return (total or 0) / 100


def best(history: Sequence[Version]) -> Version | None:
    """The version to hand out: one that may be sent before one that may not, then the highest total.

    Of equals the latest, as it had the most mended. ``None`` when there is no version.
    """
    return max(reversed(history), key=_rank, default=None)


def _rank(judged: Version) -> tuple[bool, int]:
    validation, total = judged["validation"], judged["total"]
    may_be_sent = validation is not None and validation["approved"]
    return may_be_sent, _WITHOUT_SCORE if total is None else total
