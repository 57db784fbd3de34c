"""By which strategy to search for a message: the one whose examples are nearest to it.

Nearest neighbours over the examples' vectors; the probabilities are a softmax of the strategies'
similarities, whose temperature is fitted on the examples, each compared with the others (Guo et al. 2017, "On
calibration of modern neural networks", arXiv 1706.04599). It knows the message alone, neither agents nor
tools: which agent answers is the service's own router's to say.
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

# Of a strategy's examples, those that count: its others are of its other subjects, or in another language.
NEAREST: Final = 2
# Below it another strategy is more likely, taken together, and the general one serves all.
LEAST_SURE: Final = 0.5
DEFAULT: Final[StrategyName] = "general"
_TEMPERATURES: Final = np.geomspace(0.005, 1.0, 40)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The examples as vectors.

    Attributes:
        vectors: A row each, of length 1.
        strategies: Of each row, the place of its strategy among the names.
        temperature: Of the softmax.
    """

    vectors: Floats
    strategies: NDArray[np.int64]
    temperature: float


class Router:
    """Learns the examples when it is first asked, in one call of the embedding model.

    Args:
        embedder: Its owner closes it.
        examples: By strategy; two of each at least.
    """

    def __init__(
        self, embedder: Embedder, examples: Mapping[StrategyName, Sequence[str]] = STRATEGY_EXAMPLES
    ) -> None:
        self._embedder = embedder
        self._names = tuple(examples)
        self._texts = [text for texts in examples.values() for text in texts]
        self._of = np.array([place for place, name in enumerate(examples) for _ in examples[name]])
        self._neighbours: Neighbours | None = None
        self._learning = asyncio.Lock()

    async def route(self, text: str) -> StrategyChoice:
        """The strategy for a text; the general one, and why, while the embedding model is away."""
        if not text.strip():
            return StrategyChoice(strategy=DEFAULT, confidence=0.0)
        try:
            neighbours = await self._learnt()
            # Compared as one of them: a model for retrieval embeds questions otherwise.
            [vector] = await self._embedder.embed_documents([text])
        except EmbeddingError as fault:
            log.warning("memory_route_failed", reason=fault.message)
            return StrategyChoice(strategy=DEFAULT, confidence=0.0, degraded=(f"route: {fault.message}",))
        similarities = neighbours.vectors @ np.asarray(vector)
        likely = probabilities(strategy_scores(similarities, neighbours.strategies), neighbours.temperature)
        best = int(likely.argmax())
        chosen = best if likely[best] >= LEAST_SURE else self._names.index(DEFAULT)
        return StrategyChoice(strategy=self._names[chosen], confidence=float(likely[chosen]))

    async def _learnt(self) -> Neighbours:
        async with self._learning:
            if self._neighbours is None:
                vectors = np.asarray(await self._embedder.embed_documents(self._texts))
                self._neighbours = Neighbours(vectors, self._of, fitted(vectors, self._of))
            return self._neighbours


def strategy_scores(similarities: Floats, strategies: NDArray[np.int64]) -> Floats:
    """For each strategy the mean of its nearest examples' similarities."""
    return np.array(
        [np.sort(similarities[strategies == place])[-NEAREST:].mean() for place in np.unique(strategies)]
    )


def probabilities(scores: Floats, temperature: float) -> Floats:
    """Their softmax."""
    powers = np.exp((scores - scores.max()) / temperature)
    likely: Floats = powers / powers.sum()
    return likely


def fitted(vectors: Floats, strategies: NDArray[np.int64]) -> float:
    """The temperature at which the examples, each told by the others, are the least surprising."""
    held_out = []
    for number, vector in enumerate(vectors):
        others = np.arange(len(vectors)) != number
        held_out.append(strategy_scores(vectors[others] @ vector, strategies[others]))

    def surprise(temperature: float) -> float:
        likely = [
            probabilities(scores, temperature)[place]
            for scores, place in zip(held_out, strategies, strict=True)
        ]
        return float(-np.log(np.maximum(likely, 1e-12)).mean())

    return float(min(_TEMPERATURES, key=surprise))
