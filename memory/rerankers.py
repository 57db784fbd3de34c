"""Rerankers: they reorder the best hits of a search by looking at the question and the texts together."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import httpx
from pydantic import BaseModel, Field, ValidationError

from core.errors import MemoryUnavailable
from core.settings import RerankSettings, Settings

# Fitted on recorded conversations; see benchmarks/README.md.
DIVERSITY: Final = 0.1
# The longest part of a document that is sent to Jina.
MAX_DOCUMENT_CHARACTERS: Final = 2_000
_WORD: Final = re.compile(r"\w{3,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A hit before it is reranked.

    Attributes:
        text: Its text.
        at: The time of the message.
        score: Its fused score.
    """

    text: str
    at: datetime
    score: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """A candidate's index among the candidates, and the score the reranker gave it."""

    index: int
    score: float


class Reranker(Protocol):
    """Reorders candidates."""

    @property
    def name(self) -> str:
        """The name that logs and errors use."""
        ...

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> list[Reranked]:
        """Return all candidates, best first.

        Raises:
            MemoryUnavailable: The reranker does not answer; the search then keeps the fused order.
        """
        ...


@asynccontextmanager
async def open_reranker(settings: Settings) -> AsyncIterator[Reranker | None]:
    """Open Jina's reranker if ``RERANK_API_KEY`` is set, else the local one; None if reranking is off."""
    if not settings.features.reranking:
        yield None
    elif settings.rerank.api_key is None:
        yield LocalReranker()
    else:
        async with _open_jina(settings.rerank) as reranker:
            yield reranker


class LocalReranker:
    """Maximal marginal relevance over words (Carbonell and Goldstein 1998, doi:10.1145/290941.291025).

    A candidate's relevance is its fused score. A candidate that repeats a better one loses up to
    ``diversity`` of it.

    Args:
        diversity: From 0, which changes nothing.
    """

    name = "MMR"

    def __init__(self, diversity: float = DIVERSITY) -> None:
        self._diversity = diversity

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> list[Reranked]:  # noqa: ARG002
        """See :class:`Reranker`."""
        words = [frozenset(_WORD.findall(candidate.text.lower())) for candidate in candidates]
        best_score = max(candidate.score for candidate in candidates)
        relevance = [candidate.score / best_score for candidate in candidates]
        redundancy = [0.0] * len(candidates)
        remaining = list(range(len(candidates)))
        order = []
        while remaining:
            scores = [relevance[index] - self._diversity * redundancy[index] for index in remaining]
            highest = max(scores)
            selected = remaining.pop(scores.index(highest))
            order.append(Reranked(selected, highest))
            for index in remaining:
                similarity = _jaccard_similarity(words[selected], words[index])
                redundancy[index] = max(redundancy[index], similarity)
        return order


def _jaccard_similarity(first: frozenset[str], second: frozenset[str]) -> float:
    """Return the share of common words; 0 if a set is empty."""
    return len(first & second) / len(first | second) if first and second else 0.0


class _JinaResult(BaseModel):
    index: int = Field(ge=0)
    relevance_score: float


class _JinaResponse(BaseModel):
    results: list[_JinaResult]


class JinaReranker:
    """A cross-encoder behind Jina's ``/v1/rerank`` (https://api.jina.ai/redoc) or a compatible API.

    A search waits for it, so it is asked once, within its time limit.

    Args:
        http: A client with the service's address and key.
        model: The model's name.
    """

    def __init__(self, http: httpx.AsyncClient, model: str) -> None:
        self._http = http
        self._model = model
        self.name = f"jina:{model}"

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> list[Reranked]:
        """See :class:`Reranker`."""
        body = {
            "model": self._model,
            "query": query,
            "documents": [candidate.text[:MAX_DOCUMENT_CHARACTERS] for candidate in candidates],
            "top_n": len(candidates),
            "return_documents": False,
        }
        try:
            async with asyncio.timeout(self._http.timeout.read):
                response = await self._http.post("/v1/rerank", json=body)
            response.raise_for_status()
            results = _JinaResponse.model_validate_json(response.content).results
        except (httpx.HTTPError, TimeoutError, ValidationError) as error:
            raise MemoryUnavailable(
                f"The reranker {self.name!r} does not answer ({_describe(error)}); the fused order is used",
                details={"reranker": self.name},
            ) from error
        if sorted(result.index for result in results) != list(range(len(candidates))):
            raise MemoryUnavailable(
                f"The reranker {self.name!r} returned other documents than it was sent",
                details={"reranker": self.name},
            )
        results.sort(key=lambda result: (-result.relevance_score, result.index))
        return [Reranked(result.index, result.relevance_score) for result in results]


def _describe(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    return type(error).__name__


@asynccontextmanager
async def _open_jina(settings: RerankSettings) -> AsyncIterator[JinaReranker]:
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    async with httpx.AsyncClient(
        base_url=settings.base_url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=settings.timeout_seconds,
        trust_env=False,
    ) as http:
        yield JinaReranker(http, settings.model)
