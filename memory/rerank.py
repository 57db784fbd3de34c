"""Rerankers: the best of a search, ordered again by looking at question and text together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A hit before it is ordered again.

    Attributes:
        text: What it says.
        at: When it was said.
        score: Its fused score.
    """

    text: str
    at: datetime
    score: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """The place a candidate is given: its index among the candidates, and the reranker's score."""

    index: int
    score: float


class Reranker(Protocol):
    """Orders candidates again."""

    @property
    def name(self) -> str:
        """What is said of it where it fails."""
        ...

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> list[Reranked]:
        """All candidates, best first.

        Raises:
            MemoryUnavailable: The reranker does not answer; the fused order stands then.
        """
        ...
