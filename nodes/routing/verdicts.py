"""What the router says of a text."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["sure", "close", "unknown"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A route and the probability that it is the right one, 0 to 1."""

    route: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a text belongs.

    Args:
        route: The most likely route.
        confidence: Probability that the route is right, and so the text in scope, 0 to 1.
        margin: Log odds of the route over the runner-up.
        verdict: ``sure``: go there; ``close``: two routes are too near, the model should decide among the
            route and the alternatives; ``unknown``: like nothing in the examples.
        alternatives: The next best routes, best first, at most three.
        familiarity: Probability that the text is in scope at all, never less than ``confidence``. It is what
            ``unknown`` is decided by: a text between two routes is unsure, and familiar.
    """

    route: str
    confidence: float
    margin: float
    verdict: Verdict
    alternatives: tuple[Candidate, ...]
    familiarity: float
