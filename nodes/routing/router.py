"""The router: texts in, routes out, over any embedding model."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from core.embeddings import Embedder, VectorCache
from core.embeddings.embedder import shorten
from core.errors import EmbeddingError
from core.logging import get_logger
from nodes.coordinator.classifier import Routing, TrainingTexts, clean_training_texts, fit_classifier
from nodes.coordinator.router import split_clauses
from nodes.routing.fit import Fit

Key: TypeAlias = tuple[str, int, str, TrainingTexts]

_MOST_CHARACTERS: Final = 1_000  # of a message: its beginning and end say what it is about
_REST_SECONDS: Final = 30.0  # how long an embedding model that failed is left alone, where another stands in
LIKELY: Final = 0.5
_MOST_FITS: Final = 16

_fits: OrderedDict[Key, Fit] = OrderedDict()
_log = get_logger(__name__)


class Router:
    """Routes texts to the route whose examples they are like.

    Args:
        examples: Utterances of each route, in any order and any language the embedding model knows.
        embedder: Its purpose should be ``similarity``.
        outside: Utterances that belong to no route; without any, routes are held back to learn what a
            stranger looks like.
        fallback: Answers, with a fit of its own, while ``embedder`` fails.
        kept: Where the examples' vectors are looked up first.

    Raises:
        StartupError: There is no route, or one without an utterance.
    """

    def __init__(
        self,
        examples: Mapping[str, Sequence[str]],
        embedder: Embedder,
        *,
        outside: Sequence[str] = (),
        fallback: Embedder | None = None,
        kept: VectorCache | None = None,
    ) -> None:
        self._examples = clean_training_texts(examples, outside)
        self._embedder = embedder
        self._fallback = fallback
        self._kept = kept or VectorCache(None)
        self._fitting: dict[Key, asyncio.Task[Fit]] = {}
        self._resting_until = 0.0

    @property
    def model(self) -> str:
        """The embedding model, as ``provider:model``."""
        return self._embedder.model

    async def ready(self) -> None:
        """Fit, so that the first message need not wait; done once for all callers and routers alike.

        Raises:
            EmbeddingError: The embedding model fails, and there is no fallback or it fails too.
        """
        await self._routings([])

    async def aclose(self) -> None:
        """End a fit in progress and close the embedding models' connections; for the service's shutdown."""
        fitting = list(self._fitting.values())
        for task in fitting:
            task.cancel()
        await asyncio.gather(*fitting, return_exceptions=True)
        for embedder in filter(None, (self._embedder, self._fallback)):
            await embedder.aclose()

    async def route(self, text: str) -> Routing:
        """Where a text belongs; a text without a letter or digit is ``unknown``.

        Raises:
            EmbeddingError: The embedding model fails, and there is no fallback or it fails too.
        """
        [routing] = await self._routings([text])
        return routing

    async def parts(self, text: str) -> tuple[tuple[str, Routing], ...]:
        """The parts of a message that are surely for different routes, in order.

        A part is taken for one of its own when it is sure of a route the whole message is also near to, or
        likely for one of the two it is nearest to; what lies between belongs to the part before it.

        Returns:
            One element, the text itself, when it is about one thing or too long to be taken apart.

        Raises:
            EmbeddingError: The embedding model fails, and there is no fallback or it fails too.
        """
        pieces = split_clauses(text) if len(text) <= _MOST_CHARACTERS else []
        if len(pieces) < 2:  # noqa: PLR2004 - two things need two clauses
            return ((text, await self.route(text)),)
        whole, *routings = await self._routings([text, *pieces])
        found: list[tuple[str, Routing | None]] = []
        for piece, routing in zip(pieces, routings, strict=True):
            own = routing if _stands_alone(routing, whole) else None
            if found and _belongs(found[-1][1], own):
                before, known = found[-1]
                found[-1] = (f"{before} {piece}", _surer(known, own))
            else:
                found.append((piece, own))
        sure = tuple((piece, routing) for piece, routing in found if routing is not None)
        return sure if len({routing.route for _, routing in sure}) > 1 else ((text, whole),)

    async def _routings(self, texts: Sequence[str]) -> list[Routing]:
        """Answers of the embedder, or of the fallback while that fails."""
        if self._fallback is None:
            return await self._answers(self._embedder, texts)
        if time.monotonic() >= self._resting_until:
            try:
                return await self._answers(self._embedder, texts)
            except EmbeddingError as error:
                self._resting_until = time.monotonic() + _REST_SECONDS
                _log.warning(
                    "routing_falls_back",
                    model=self._embedder.model,
                    fallback=self._fallback.model,
                    reason=error.message,
                )
        return await self._answers(self._fallback, texts)

    async def _answers(self, embedder: Embedder, texts: Sequence[str]) -> list[Routing]:
        fitted = await self._fit(embedder)
        vectors = await embedder.embed_documents([shorten(text, _MOST_CHARACTERS) for text in texts])
        answers = fitted.routings(vectors)
        return [
            routing if _says_something(text) else replace(routing, verdict="unknown", confidence=0.0)
            for text, routing in zip(texts, answers, strict=True)
        ]

    async def _fit(self, embedder: Embedder) -> Fit:
        key = (embedder.model, embedder.dimensions, embedder.purpose, self._examples)
        if key in _fits:
            _fits.move_to_end(key)
            return _fits[key]
        if key not in self._fitting:
            # A task of its own: that the first caller goes away does not take the fit from the others.
            task = asyncio.create_task(self._fit_now(embedder, key))
            task.add_done_callback(lambda done: self._fitted(key, done))
            self._fitting[key] = task
        return await asyncio.shield(self._fitting[key])

    async def _fit_now(self, embedder: Embedder, key: Key) -> Fit:
        start = time.perf_counter()
        texts = self._examples.texts
        distinct = list(dict.fromkeys(texts))
        vectors = dict(zip(distinct, await self._kept.embed_documents(embedder, distinct), strict=True))
        fitted = await asyncio.to_thread(fit_classifier, self._examples, [vectors[text] for text in texts])
        _fits[key] = fitted
        while len(_fits) > _MOST_FITS:
            _fits.popitem(last=False)
        _log.info(
            "router_fitted",
            model=embedder.model,
            routes=len(fitted.routes),
            utterances=len(texts),
            seconds=round(time.perf_counter() - start, 2),
        )
        return fitted

    def _fitted(self, key: Key, task: asyncio.Task[Fit]) -> None:
        del self._fitting[key]
        if not task.cancelled():
            task.exception()  # those who wait have it; nobody may be left


def _stands_alone(part: Routing, whole: Routing) -> bool:
    """Whether a clause is for a route of its own.

    It is sure of a route the whole message is near to; or likelier right than not, and the route one of the
    two the whole message is nearest to, which is what a message about two things looks like.
    """
    near = [whole.route, *(each.route for each in whole.alternatives)]
    if part.verdict == "sure":
        return part.route in near
    return part.verdict == "close" and part.confidence > LIKELY and part.route in near[:2]


def _belongs(before: Routing | None, own: Routing | None) -> bool:
    return before is None or own is None or before.route == own.route


def _surer(one: Routing | None, other: Routing | None) -> Routing | None:
    both = [each for each in (one, other) if each is not None]
    return max(both, key=lambda each: each.confidence, default=None)


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)
