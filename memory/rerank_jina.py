"""Jina's reranker over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import httpx
from pydantic import BaseModel, Field, ValidationError

from core.errors import MemoryUnavailable
from core.settings import RerankSettings
from memory.rerankers import Candidate, Reranked

_CHARACTERS: Final = 2_000


class _Result(BaseModel):
    index: int = Field(ge=0)
    relevance_score: float


class _Answer(BaseModel):
    results: list[_Result]


class JinaReranker:
    """A cross-encoder behind Jina's ``/v1/rerank`` (https://api.jina.ai/redoc), or what speaks as it does.

    A search waits for it: it is asked once, within its time limit, and without it the fused order stands.

    Args:
        http: A client of the service's address and key.
        model: Its model.
    """

    def __init__(self, http: httpx.AsyncClient, model: str) -> None:
        self._http = http
        self.name = f"jina:{model}"

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> list[Reranked]:
        """See :class:`memory.rerankers.Reranker`."""
        body = {
            "model": self.name.removeprefix("jina:"),
            "query": query,
            "documents": [candidate.text[:_CHARACTERS] for candidate in candidates],
            "top_n": len(candidates),
            "return_documents": False,
        }
        try:
            async with asyncio.timeout(self._http.timeout.read):
                response = await self._http.post("/v1/rerank", json=body)
            response.raise_for_status()
            answer = _Answer.model_validate_json(response.content)
        except (httpx.HTTPError, TimeoutError, ValidationError) as error:
            raise MemoryUnavailable(
                f"The reranker {self.name!r} does not answer ({_reason(error)}); the fused order is used",
                details={"reranker": self.name},
            ) from error
        if sorted(result.index for result in answer.results) != list(range(len(candidates))):
            raise MemoryUnavailable(
                f"The reranker {self.name!r} gave other documents than it was asked about",
                details={"reranker": self.name},
            )
        ordered = sorted(answer.results, key=lambda result: (-result.relevance_score, result.index))
        return [Reranked(result.index, result.relevance_score) for result in ordered]


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    return type(error).__name__


@asynccontextmanager
async def open_jina(settings: RerankSettings) -> AsyncIterator[JinaReranker]:
    """The reranker with a client of its own, closed with the context.

    Args:
        settings: With a key.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    async with httpx.AsyncClient(
        base_url=settings.base_url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=settings.timeout_seconds,
        trust_env=False,
    ) as http:
        yield JinaReranker(http, settings.model)
