"""Recall@k, its tables, and weights fitted on some conversations and tested on another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Final

from memory.ranking import fuse_ranks, sort_by_score

CUTS: Final = (5, 10, 25)
VECTOR_WEIGHTS: Final = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
TRIGRAM_WEIGHTS: Final = (0.0, 0.1, 0.2, 0.3)
RRF_KS: Final = (5, 10, 20, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """What was found for a question.

    Attributes:
        group: The conversation it is about.
        answerable: Whether the conversation answers it (categories 1 to 4).
        evidence: What should be found.
        ids: What was found, best first.
    """

    group: str
    answerable: bool
    evidence: frozenset[str]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """Mean recall in percent at each cut, of a question's evidence (macro), and of all evidence (micro)."""

    answerable: tuple[float, ...]
    every: tuple[float, ...]
    answerable_micro: tuple[float, ...]
    every_micro: tuple[float, ...]


def recall(found: Sequence[Ranked]) -> Recall:
    """Recall over the answerable questions, and over all."""
    answerable = [each for each in found if each.answerable]
    return Recall(
        tuple(_macro(answerable, cut) for cut in CUTS),
        tuple(_macro(found, cut) for cut in CUTS),
        tuple(_micro(answerable, cut) for cut in CUTS),
        tuple(_micro(found, cut) for cut in CUTS),
    )


def _hits(each: Ranked, cut: int) -> int:
    return len(each.evidence & set(each.ids[:cut]))


def _macro(found: Sequence[Ranked], cut: int) -> float:
    return 100 * fmean(_hits(each, cut) / len(each.evidence) for each in found) if found else 0.0


def _micro(found: Sequence[Ranked], cut: int) -> float:
    wanted = sum(len(each.evidence) for each in found)
    return 100 * sum(_hits(each, cut) for each in found) / wanted if wanted else 0.0


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[min(round(percent / 100 * (len(values) - 1)), len(values) - 1)]


def table(rows: Sequence[tuple[str, Recall, Sequence[float]]]) -> str:
    """A Markdown table: recall@5 / 10 / 25 in percent, and milliseconds where they were taken."""
    lines = [
        "| recall@5 / 10 / 25 | categories 1-4 | all | evidence, 1-4 | evidence, all | p50 / p95 ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, result, took in rows:
        columns = (result.answerable, result.every, result.answerable_micro, result.every_micro)
        cells = [" / ".join(f"{value:.1f}" for value in column) for column in columns]
        time = f"{percentile(took, 50):.1f} / {percentile(took, 95):.1f}" if took else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {time} |")
    return "\n".join(lines)


def leave_one_out(legs: Mapping[str, Sequence[Ranked]]) -> tuple[dict[str, str], Recall]:
    """Fit the fusion on all conversations but one, test it on that one, for each in turn.

    Args:
        legs: For each leg what it found for every question, in the same order.

    Returns:
        The weights that were chosen for each conversation left out, and the recall on those together.
    """
    groups = sorted({each.group for each in legs["keyword"]})
    options = list(product(VECTOR_WEIGHTS, TRIGRAM_WEIGHTS, RRF_KS))
    tried = {option: _refused(legs, *option) for option in options}
    chosen, unseen = {}, []
    for group in groups:
        vector, trigram, k = max(options, key=lambda option: _quality(tried[option], without=group))
        chosen[group] = f"vector {vector}, trigram {trigram}, k {k}"
        unseen += [each for each in tried[vector, trigram, k] if each.group == group]
    return chosen, recall(unseen)


def _refused(legs: Mapping[str, Sequence[Ranked]], vector: float, trigram: float, k: int) -> list[Ranked]:
    weights = {"keyword": 1.0, "vector": vector, "trigram": trigram}
    found = []
    for place, each in enumerate(legs["keyword"]):
        ranks = {leg: {id_: rank for rank, id_ in enumerate(of[place].ids, 1)} for leg, of in legs.items()}
        scores = fuse_ranks(ranks, weights, k)
        order = sort_by_score(scores, {id_: number for number, id_ in enumerate(sorted(scores))})
        found.append(
            Ranked(group=each.group, answerable=each.answerable, evidence=each.evidence, ids=tuple(order))
        )
    return found


def _quality(found: Sequence[Ranked], *, without: str) -> float:
    return sum(recall([each for each in found if each.group != without]).answerable)
