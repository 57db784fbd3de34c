"""Which reranker is used, from the settings alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.settings import Settings
from memory.rerankers import LocalReranker, Reranker, open_jina


@asynccontextmanager
async def open_reranker(settings: Settings) -> AsyncIterator[Reranker | None]:
    """Jina's where ``RERANK_API_KEY`` is set, else the local one; none without ``FEATURE_RERANKING``."""
    if not settings.features.reranking:
        yield None
    elif settings.rerank.api_key is None:
        yield LocalReranker()
    else:
        async with open_jina(settings.rerank) as jina:
            yield jina
