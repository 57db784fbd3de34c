"""Routing: chooses the retrieval strategy for a message, by its nearest example messages.

The probabilities are a softmax of the strategies' similarities, whose temperature is fitted by predicting
each example from the others (Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599).
The router knows the message only, neither agents nor tools; the service's own router chooses the agent.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.embeddings import Embedder
from core.errors import EmbeddingError
from core.logging import get_logger
from core.memory import StrategyChoice, StrategyName
from core.memory.strategies import STRATEGY_EXAMPLES

log = get_logger(__name__)

# How many of a strategy's examples count; its other examples are about other subjects or in another language.
NEAREST: Final = 2
# Below this, the other strategies together are more probable, and the general one serves them all.
MIN_PROBABILITY: Final = 0.5
GENERAL: Final[StrategyName] = "general"
_TEMPERATURES: Final = np.geomspace(0.005, 1.0, 40)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The embedded examples.

    Attributes:
        vectors: One row of length 1 per example.
        strategies: The index of each row's strategy among the names.
        temperature: The temperature of the softmax.
    """

    vectors: Floats
    strategies: NDArray[np.int64]
    temperature: float


class StrategyRouter:
    """Chooses strategies; it embeds the examples on first use, in one call of the embedding model.

    Args:
        embedder: Its owner closes it.
        examples: Example messages by strategy, at least two for each.
    """

    def __init__(
        self, embedder: Embedder, examples: Mapping[StrategyName, Sequence[str]] = STRATEGY_EXAMPLES
    ) -> None:
        self._embedder = embedder
        self._names = tuple(examples)
        self._texts = [text for texts in examples.values() for text in texts]
        self._strategies = np.array([index for index, name in enumerate(examples) for _ in examples[name]])
        self._neighbours: Neighbours | None = None
        self._lock = asyncio.Lock()

    async def route(self, text: str) -> StrategyChoice:
        """Choose the strategy for a text; the general one if the embedding model is unavailable."""
        if not text.strip():
            return StrategyChoice(strategy=GENERAL, confidence=0.0)
        try:
            neighbours = await self._load_neighbours()
            # Embedded as a document, like the examples: retrieval models embed questions differently.
            [vector] = await self._embedder.embed_documents([text])
        except EmbeddingError as error:
            log.warning("memory_route_failed", reason=error.message)
            return StrategyChoice(strategy=GENERAL, confidence=0.0, degraded=(f"route: {error.message}",))
        similarities = neighbours.vectors @ np.asarray(vector)
        scores = score_strategies(similarities, neighbours.strategies)
        probabilities = compute_probabilities(scores, neighbours.temperature)
        best = int(probabilities.argmax())
        choice = best if probabilities[best] >= MIN_PROBABILITY else self._names.index(GENERAL)
        return StrategyChoice(strategy=self._names[choice], confidence=float(probabilities[choice]))

    async def _load_neighbours(self) -> Neighbours:
        async with self._lock:
            if self._neighbours is None:
                vectors = np.asarray(await self._embedder.embed_documents(self._texts))
                temperature = fit_temperature(vectors, self._strategies)
                self._neighbours = Neighbours(vectors, self._strategies, temperature)
            return self._neighbours


def score_strategies(similarities: Floats, strategies: NDArray[np.int64]) -> Floats:
    """Return each strategy's score: the mean similarity of its nearest examples."""
    return np.array(
        [np.sort(similarities[strategies == index])[-NEAREST:].mean() for index in np.unique(strategies)]
    )


def compute_probabilities(scores: Floats, temperature: float) -> Floats:
    """Return the softmax of the scores."""
    powers = np.exp((scores - scores.max()) / temperature)
    probabilities: Floats = powers / powers.sum()
    return probabilities


def fit_temperature(vectors: Floats, strategies: NDArray[np.int64]) -> float:
    """Return the temperature with the lowest log loss when each example is predicted from the others."""
    held_out = []
    for number, vector in enumerate(vectors):
        others = np.arange(len(vectors)) != number
        held_out.append(score_strategies(vectors[others] @ vector, strategies[others]))

    def log_loss(temperature: float) -> float:
        probabilities = [
            compute_probabilities(scores, temperature)[index]
            for scores, index in zip(held_out, strategies, strict=True)
        ]
        return float(-np.log(np.maximum(probabilities, 1e-12)).mean())

    return float(min(_TEMPERATURES, key=log_loss))
