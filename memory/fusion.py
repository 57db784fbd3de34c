"""Weighted reciprocal rank fusion, and what age takes away."""

import math
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

# Smaller than the usual 60 (Cormack et al. 2009, doi:10.1145/1571941.1572114): the first ranks of a leg say
# more in lists this short. Fitted, see benchmarks/README.md.
RRF_K: Final = 10

Id = TypeVar("Id", bound=Hashable)
_DAY: Final = timedelta(days=1)


def fused(
    ranks: Mapping[str, Mapping[Id, int]], weights: Mapping[str, float], k: int = RRF_K
) -> dict[Id, float]:
    """The score of every id that a leg names: the sum of ``weight / (k + rank)`` over its legs.

    Args:
        ranks: For each leg the rank of its ids, from 1.
        weights: For each leg; a leg without one counts nothing.
        k: How much less the first ranks stand out.

    Returns:
        A positive score for each id; none for one that only legs without weight name.
    """
    scores: dict[Id, float] = {}
    for leg in sorted(ranks):
        weight = weights.get(leg, 0.0)
        if weight > 0:
            for identity, rank in ranks[leg].items():
                # The least weights would come to nothing, and a leg that has one names its ids.
                share = weight / (k + rank) or math.ulp(0.0)
                scores[identity] = scores.get(identity, 0.0) + share
    return scores


def best_first(scores: Mapping[Id, float], tie: Mapping[Id, int]) -> Sequence[Id]:
    """The ids by falling score; those of one score by ``tie``, rising."""
    return sorted(scores, key=lambda identity: (-scores[identity], tie[identity]))


def age_factor(at: datetime, now: datetime, half_life_days: float | None, share: float) -> float:
    """What is left of a score: 1 for what is new, ``1 - share`` in the end, midway at the half-life."""
    if half_life_days is None:
        return 1.0
    days = max((now - at) / _DAY, 0.0)
    return 1.0 - share * (1.0 - math.exp2(-days / half_life_days))
