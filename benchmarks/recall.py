"""Recall@k, its tables, and the cross-validation of fusion weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    """The ranking that a search returned for a question.

    Attributes:
        group: The conversation that the question is about.
        answerable: Whether the conversation answers it (categories 1 to 4).
        evidence: The ids that should be found.
        ids: The ids that were found, best first.
    """

    group: str
    answerable: bool
    evidence: frozenset[str]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall in percent at each cut: the mean over the questions (macro), and over all evidence (micro)."""

    answerable: tuple[float, ...]
    every: tuple[float, ...]
    answerable_micro: tuple[float, ...]
    every_micro: tuple[float, ...]


def recall(found: Sequence[Ranked]) -> Recall:
    """Compute the recall over the answerable questions, and over all."""
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
    """Return the value that ``percent`` of the values do not exceed; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[min(round(percent / 100 * (len(values) - 1)), len(values) - 1)]


def table(rows: Sequence[tuple[str, Recall, Sequence[float]]]) -> str:
    """Format a Markdown table: recall@5 / 10 / 25 in percent, and milliseconds if measured."""
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


def leave_one_out(retrievers: Mapping[str, Sequence[Ranked]]) -> tuple[dict[str, str], Recall]:
    """Fit the fusion weights on all conversations but one and test them on that one, for each in turn.

    Args:
        retrievers: The rankings of each retriever, for the same questions in the same order.

    Returns:
        The weights fitted without each conversation, and the recall over all left-out conversations.
    """
    groups = sorted({each.group for each in retrievers["keyword"]})
    options = list(product(VECTOR_WEIGHTS, TRIGRAM_WEIGHTS, RRF_KS))
    results = {option: _fuse(retrievers, *option) for option in options}
    chosen, unseen = {}, []
    for group in groups:
        vector, trigram, k = max(options, key=lambda option: _score(results[option], without=group))
        chosen[group] = f"vector {vector}, trigram {trigram}, k {k}"
        unseen += [each for each in results[vector, trigram, k] if each.group == group]
    return chosen, recall(unseen)


def _fuse(retrievers: Mapping[str, Sequence[Ranked]], vector: float, trigram: float, k: int) -> list[Ranked]:
    weights = {"keyword": 1.0, "vector": vector, "trigram": trigram}
    fused = []
    for index, question in enumerate(retrievers["keyword"]):
        ranks = {
            retriever: {id_: rank for rank, id_ in enumerate(rankings[index].ids, 1)}
            for retriever, rankings in retrievers.items()
        }
        scores = fuse_ranks(ranks, weights, k)
        order = sort_by_score(scores, {id_: number for number, id_ in enumerate(sorted(scores))})
        fused.append(replace(question, ids=tuple(order)))
    return fused


def _score(found: Sequence[Ranked], *, without: str) -> float:
    return sum(recall([each for each in found if each.group != without]).answerable)
