"""Ranking: weighted reciprocal rank fusion of what the retrievers found, age, and the choice of hits."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar, get_args

from core.memory import RetrieverRank, Strategy
from core.memory.strategies import Retriever

# Smaller than the usual 60 (Cormack et al. 2009, doi:10.1145/1571941.1572114), because the first ranks say
# more in lists this short. Fitted; see benchmarks/README.md.
RRF_K: Final = 10

Id = TypeVar("Id", bound=Hashable)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What the retrievers found. Ids of units are positive, those of facts are negated.

    Attributes:
        ranks: The rank of each id, by retriever.
        scores: The scores in the order of the ranks, by retriever.
        messages: The message of each unit.
        times: The time of each id.
        waiting: How many units wait for a vector.
    """

    ranks: Mapping[str, Mapping[int, int]]
    scores: Mapping[str, Sequence[float]]
    messages: Mapping[int, int]
    times: Mapping[int, datetime]
    waiting: int

    def ranks_of(self, identity: int) -> tuple[RetrieverRank, ...]:
        """Return the ranks and scores of an id."""
        return tuple(
            RetrieverRank(retriever, rank, self.scores[retriever][rank - 1])
            for retriever, ranks in sorted(self.ranks.items())
            if (rank := ranks.get(identity))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The ids to show: the best, best first, and the newest units, newest first; and all fused scores."""

    best: Sequence[int]
    newest: Sequence[int]
    scores: Mapping[int, float]


def select_candidates(candidates: Candidates, strategy: Strategy, now: datetime, limit: int) -> Selection:
    """Select the ``limit`` best candidates, one for each message, and the newest messages."""
    scores = fuse_ranks(candidates.ranks, {name: strategy.weight(name) for name in get_args(Retriever)})
    if strategy.half_life_days is not None:
        scores = {
            # A fact that holds does not age, however long it has held.
            identity: score
            if identity < 0
            else score
            * age_factor(candidates.times[identity], now, strategy.half_life_days, strategy.age_share)
            for identity, score in scores.items()
        }
    best: dict[int, int] = {}
    for identity in sort_by_score(scores, {identity: identity for identity in scores}):
        # The best part of a long message represents the message.
        best.setdefault(candidates.messages[identity], identity)
        if len(best) == limit:
            break
    return Selection(
        best=tuple(best.values()), newest=tuple(candidates.ranks.get("recent", ())), scores=scores
    )


def fuse_ranks(
    ranks: Mapping[str, Mapping[Id, int]], weights: Mapping[str, float], k: int = RRF_K
) -> dict[Id, float]:
    """Return the fused score of every id: the sum of ``weight / (k + rank)`` over its retrievers.

    Args:
        ranks: The rank of each id, from 1, by retriever.
        weights: By retriever; a retriever without a weight counts nothing.
        k: Larger values make the first ranks stand out less.

    Returns:
        Positive scores; none for an id that only retrievers without weight found.
    """
    scores: dict[Id, float] = {}
    for retriever in sorted(ranks):
        weight = weights.get(retriever, 0.0)
        if weight > 0:
            for identity, rank in ranks[retriever].items():
                # A tiny weight would round to zero, but its retriever did find the id.
                share = weight / (k + rank) or math.ulp(0.0)
                scores[identity] = scores.get(identity, 0.0) + share
    return scores


def sort_by_score(scores: Mapping[Id, float], tie: Mapping[Id, int]) -> Sequence[Id]:
    """Return the ids by falling score, those of equal score by rising ``tie``."""
    return sorted(scores, key=lambda identity: (-scores[identity], tie[identity]))


def age_factor(at: datetime, now: datetime, half_life_days: float | None, share: float) -> float:
    """Return what age leaves of a score: 1 when new, midway at the half-life, ``1 - share`` in the end."""
    if half_life_days is None:
        return 1.0
    days = max((now - at) / _DAY, 0.0)
    return 1.0 - share * (1.0 - math.exp2(-days / half_life_days))
