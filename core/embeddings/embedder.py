"""A bounded embedding model: texts in, vectors of unit length out, or one typed error."""

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

from core.errors import EmbeddingError, ModelError
from core.logging import get_logger
from core.models.faults import ProviderFaults, TransientError
from core.texts import make_storable

Purpose: TypeAlias = Literal["similarity", "retrieval"]
T = TypeVar("T")

_LONGEST_PAUSE = 10  # times the first pause

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """One embedding model for one purpose.

    Vectors of two embedders compare only when ``model``, ``dimensions`` and ``purpose`` are the same: store
    the three with a vector.

    Args:
        model: ``provider:model``.
        dimensions: Length of every vector.
        purpose: ``similarity`` treats both sides alike; ``retrieval`` tells documents from queries.
        embeddings: The model behind LangChain's interface.
        timeout: Seconds one attempt at one batch may take.
        max_attempts: Attempts at one batch.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
        batch: Texts asked for at once.
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
    close: Callable[[], Awaitable[None]] | None = None

    async def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors of what is searched or compared, in the order of the texts.

        Args:
            texts: Any; empty, hostile and very long ones are cleaned first, see :func:`clean_text`.

        Returns:
            ``len(texts)`` vectors of ``dimensions`` numbers and of length 1.

        Raises:
            EmbeddingError: The model does not answer, or refuses, or answers with other vectors.
        """
        clean = [clean_text(text) for text in texts]
        vectors: list[list[float]] = []
        for start in range(0, len(clean), self.batch):
            batch = clean[start : start + self.batch]
            found = await self._attempts(partial(self.embeddings.aembed_documents, batch))
            vectors += self._checked(found, len(batch))
        return vectors

    async def embed_query(self, text: str) -> list[float]:
        """The vector of what is looked for.

        Returns:
            ``dimensions`` numbers, of length 1.

        Raises:
            EmbeddingError: The model does not answer, or refuses, or answers with another vector.
        """
        if self.purpose == "similarity":
            [vector] = await self.embed_documents([text])
            return vector
        return self._unit(await self._attempts(partial(self.embeddings.aembed_query, clean_text(text))))

    async def aclose(self) -> None:
        """Close the model's connections; for the service's shutdown."""
        if self.close is not None:
            await self.close()

    async def _attempts(self, call: Callable[[], Awaitable[T]]) -> T:
        async def attempt() -> T:
            with AdapterFaults(self.model):
                async with asyncio.timeout(self.timeout):
                    return await call()

        backoff = wait_exponential_jitter(
            initial=self.first_pause, max=self.first_pause * _LONGEST_PAUSE, jitter=self.first_pause
        )
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.max_attempts),
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

    def _checked(self, vectors: Sequence[Sequence[float]], count: int) -> list[list[float]]:
        """The vectors at unit length, if they are what they should be.

        Providers do not all normalise: ``gemini-embedding-001`` does at 3072 dimensions alone.
        """
        if len(vectors) != count:
            raise self._unfit(f"{len(vectors)} vectors for {count} texts")
        return [self._unit(vector) for vector in vectors]

    def _unit(self, vector: Sequence[float]) -> list[float]:
        if len(vector) != self.dimensions:
            raise self._unfit(f"vectors of {len(vector)} dimensions, and {self.dimensions} are expected")
        length = math.hypot(*vector)
        if not math.isfinite(length) or length == 0:
            raise self._unfit("a vector that is zero or not finite")
        return [number / length for number in vector]

    def _unfit(self, what: str) -> EmbeddingError:
        return EmbeddingError(
            f"The embedding model {self.model!r} gave {what}; check EMBEDDING_MODEL and EMBEDDING_DIMENSIONS",
            details={"model": self.model, "reason": what},
        )


class AdapterFaults(ProviderFaults):
    """As :class:`~core.models.faults.ProviderFaults`, looking into what an adapter wraps.

    ``langchain-google-genai`` puts whatever happens to an embedding call into an exception of its own.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise our error for the provider's, or for its cause."""
        super().__exit__(kind, error, trace)
        if isinstance(error, Exception) and isinstance(error.__cause__, Exception):
            super().__exit__(type(error.__cause__), error.__cause__, trace)


MAX_CHARACTERS: Final = 8_000
# Providers refuse an empty text; a lone stop means as little.
_NOTHING: Final = "."
_GAP: Final = " … "


def clean_text(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, cut to ``MAX_CHARACTERS``, never empty."""
    return shorten(make_storable(text[: 4 * MAX_CHARACTERS]), MAX_CHARACTERS).strip() or _NOTHING


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters: the beginning and, for a third of them, the end.

    A letter says what it is about in its first lines and what it asks for in its last ones.
    """
    if len(text) <= limit:
        return text
    end = max((limit - len(_GAP)) // 3, 0)
    head = text[: max(limit - len(_GAP) - end, 0)]
    return f"{head}{_GAP}{text[len(text) - end :]}"[:limit]
