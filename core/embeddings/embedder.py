"""An embedding model with bounded calls."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Literal, TypeAlias, TypeVar

from langchain_core.embeddings import Embeddings
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from core import deadline
from core.deadline import StopAtDeadline
from core.embeddings.cache import VectorCache
from core.errors import EmbeddingError, ModelError
from core.logging import get_logger
from core.models.faults import ProviderFaults, TransientError
from core.texts import make_storable

Purpose: TypeAlias = Literal["similarity", "retrieval"]
T = TypeVar("T")

_LONGEST_PAUSE = 10  # times the first pause
# A message and its clauses.
_MAX_CACHED_TEXTS: Final = 16

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """An embedding model for one purpose.

    Vectors of two embedders can be compared only if ``model``, ``dimensions`` and ``purpose`` are the same;
    store the three with a vector.

    Args:
        model: ``provider:model``.
        dimensions: Length of every vector.
        purpose: ``similarity`` treats all texts alike; ``retrieval`` distinguishes documents and queries.
        embeddings: The model behind LangChain's interface.
        timeout: Seconds that one attempt at one batch may take, waiting for its turn included.
        max_attempts: Attempts at one batch.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
        batch: Texts per call.
        query_form: How the model takes queries, and all texts for ``similarity``; empty: by its purpose. The
            model's vectors of one text in one form are the same, whatever the embedder's purpose.
        cache: Keeps vectors of queries, and of texts for ``similarity``; ``None``: nothing is kept.
        close: Closes the model's connections.
    """

    model: str
    dimensions: int
    purpose: Purpose
    embeddings: Embeddings
    timeout: float = 10
    max_attempts: int = 1
    first_pause: float = 0.5
    batch: int = 64
    query_form: str = ""
    cache: VectorCache | None = None
    close: Callable[[], Awaitable[None]] | None = None

    async def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed texts that are searched or compared.

        Args:
            texts: Any texts; they are cleaned first, see :func:`clean_text`.

        Returns:
            One vector of ``dimensions`` numbers per text, in order, each of unit length.

        Raises:
            EmbeddingError: The model is unavailable, rejects the call, or returns unusable vectors.
        """
        clean = [clean_text(text) for text in texts]
        # A long list is a corpus, which is embedded once.
        if self.cache is None or self.purpose != "similarity" or len(clean) > _MAX_CACHED_TEXTS:
            return await self._embed_documents(clean)
        vectors = {text: vector for text in clean if (vector := self._find_cached(text))}
        missing = [text for text in dict.fromkeys(clean) if text not in vectors]
        for text, vector in zip(missing, await self._embed_documents(missing), strict=True):
            vectors[text] = self._keep(text, vector)
        return [list(vectors[text]) for text in clean]

    async def embed_query(self, text: str) -> list[float]:
        """Embed a query.

        Returns:
            A vector of ``dimensions`` numbers, of unit length.

        Raises:
            EmbeddingError: The model is unavailable, rejects the call, or returns an unusable vector.
        """
        if self.purpose == "similarity":
            [vector] = await self.embed_documents([text])
            return vector
        clean = clean_text(text)
        if self.cache is None:
            return await self._embed_query(clean)
        # An agent's tools search with the same words at the same time.
        async with self.cache.lock(self._cached_form, clean):
            if cached := self._find_cached(clean):
                return list(cached)
            return list(self._keep(clean, await self._embed_query(clean)))

    async def aclose(self) -> None:
        """Close the model's connections."""
        if self.close is not None:
            await self.close()

    async def _embed_query(self, clean: str) -> list[float]:
        return self._normalise(await self._attempt(partial(self.embeddings.aembed_query, clean)))

    async def _embed_documents(self, clean: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for start in range(0, len(clean), self.batch):
            batch = list(clean[start : start + self.batch])
            batch_vectors = await self._attempt(partial(self.embeddings.aembed_documents, batch))
            vectors += self._check_vectors(batch_vectors, len(batch))
        return vectors

    @property
    def _cached_form(self) -> str:
        return f"{self.model}\n{self.dimensions}\n{self.query_form or self.purpose}"

    def _find_cached(self, clean: str) -> Sequence[float] | None:
        return self.cache.get(self._cached_form, clean) if self.cache else None

    def _keep(self, clean: str, vector: Sequence[float]) -> Sequence[float]:
        if self.cache:
            self.cache.put(self._cached_form, clean, vector)
        return vector

    async def _attempt(self, call: Callable[[], Awaitable[T]]) -> T:
        async def attempt() -> T:
            with AdapterFaults(self.model):
                async with asyncio.timeout(deadline.limit(self.timeout)):
                    return await call()

        backoff = wait_exponential_jitter(
            initial=self.first_pause, max=self.first_pause * _LONGEST_PAUSE, jitter=self.first_pause
        )
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.max_attempts) | StopAtDeadline(),
            wait=backoff,
            retry=retry_if_exception_type(TransientError),
            after=self._log_attempt,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except TransientError as fault:
            raise EmbeddingError(
                f"The embedding model {self.model!r} does not answer ({fault.reason}); try again later",
                details={"model": self.model, "attempts": self.max_attempts, "reason": fault.reason},
                retry_after=fault.retry_after,
            ) from fault
        except ModelError as refused:
            raise EmbeddingError(refused.message, details=refused.details) from refused

    def _log_attempt(self, state: RetryCallState) -> None:
        fault = state.outcome.exception() if state.outcome is not None else None
        _log.warning(
            "embedding_attempt_failed", model=self.model, attempt=state.attempt_number, reason=str(fault)
        )

    def _check_vectors(self, vectors: Sequence[Sequence[float]], count: int) -> list[list[float]]:
        """Return the vectors at unit length, or raise if their number or shape is wrong.

        Not all providers normalise: ``gemini-embedding-001`` does only at 3072 dimensions.
        """
        if len(vectors) != count:
            raise self._unusable(f"{len(vectors)} vectors for {count} texts")
        return [self._normalise(vector) for vector in vectors]

    def _normalise(self, vector: Sequence[float]) -> list[float]:
        if len(vector) != self.dimensions:
            raise self._unusable(f"vectors of {len(vector)} dimensions instead of {self.dimensions}")
        length = math.hypot(*vector)
        if not math.isfinite(length) or length == 0:
            raise self._unusable("a vector that is zero or not finite")
        return [number / length for number in vector]

    def _unusable(self, what: str) -> EmbeddingError:
        return EmbeddingError(
            f"The embedding model {self.model!r} returned {what}; "
            "check EMBEDDING_MODEL and EMBEDDING_DIMENSIONS",
            details={"model": self.model, "reason": what},
        )


class AdapterFaults(ProviderFaults):
    """Like :class:`~core.models.faults.ProviderFaults`, but also examines the cause of an exception.

    ``langchain-google-genai`` wraps every error of an embedding call in an exception of its own.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise our own error for the provider's or for its cause."""
        super().__exit__(kind, error, trace)
        if isinstance(error, Exception) and isinstance(error.__cause__, Exception):
            super().__exit__(type(error.__cause__), error.__cause__, trace)


MAX_CHARACTERS: Final = 8_000
# Providers reject an empty text; a lone full stop means as little.
_PLACEHOLDER: Final = "."
_GAP: Final = " … "


def clean_text(text: str) -> str:
    """Return the text without NUL and unpaired surrogates, at most ``MAX_CHARACTERS`` long, never empty."""
    return shorten(make_storable(text[: 4 * MAX_CHARACTERS]), MAX_CHARACTERS).strip() or _PLACEHOLDER


def shorten(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of a text: its beginning and, for a third of them, its end.

    A letter states its subject in its first lines and its request in its last ones.
    """
    if len(text) <= limit:
        return text
    end = max((limit - len(_GAP)) // 3, 0)
    head = text[: max(limit - len(_GAP) - end, 0)]
    return f"{head}{_GAP}{text[len(text) - end :]}"[:limit]
