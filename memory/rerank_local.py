"""The local reranker: maximal marginal relevance, with what a question names as features."""

import re
from collections.abc import Sequence
from typing import Final

from memory.rerankers import Candidate, Reranked

# Fitted on recorded conversations, see benchmarks/README.md.
DIVERSITY: Final = 0.1
_WORD: Final = re.compile(r"\w{3,}")


class LocalReranker:
    """MMR (Carbonell and Goldstein 1998, doi:10.1145/290941.291025) over words.

    A candidate's relevance is its fused score; what repeats a better one loses up to ``diversity`` of it.

    Args:
        diversity: From 0, which changes nothing.
    """

    name = "MMR"

    def __init__(self, diversity: float = DIVERSITY) -> None:
        self._diversity = diversity

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> list[Reranked]:  # noqa: ARG002
        """See :class:`memory.rerankers.Reranker`."""
        words = [frozenset(_WORD.findall(candidate.text.lower())) for candidate in candidates]
        best = max(candidate.score for candidate in candidates)
        relevance = [candidate.score / best for candidate in candidates]
        repeats = [0.0] * len(candidates)
        left = list(range(len(candidates)))
        places = []
        while left:
            worth = [relevance[index] - self._diversity * repeats[index] for index in left]
            most = max(worth)
            chosen = left.pop(worth.index(most))
            places.append(Reranked(chosen, most))
            for index in left:
                repeats[index] = max(repeats[index], overlap(words[chosen], words[index]))
        return places


def overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """The Jaccard similarity of two sets of words; 0 where one is empty."""
    return len(first & second) / len(first | second) if first and second else 0.0
