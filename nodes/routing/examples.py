"""The example utterances as training data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.errors import StartupError


@dataclass(frozen=True, slots=True)
class Examples:
    """Distinct utterances by route, in an order that does not depend on how they were given."""

    by_route: tuple[tuple[str, tuple[str, ...]], ...]
    outside: tuple[str, ...]

    @property
    def routes(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(route for route, _ in self.by_route)

    @property
    def texts(self) -> list[str]:
        """All utterances: those of the routes, then those outside."""
        return [text for _, texts in self.by_route for text in texts] + list(self.outside)


def read_examples(examples: Mapping[str, Sequence[str]], outside: Iterable[str]) -> Examples:
    """Clean and sort utterances.

    Raises:
        StartupError: There is no route, or one without an utterance.
    """
    if not examples:
        raise StartupError("a router needs at least one route with example utterances")
    by_route = tuple((route, _distinct(texts)) for route, texts in sorted(examples.items()))
    for route, texts in by_route:
        if not texts:
            raise StartupError(f"the route {route!r} has no example utterance")
    return Examples(by_route=by_route, outside=_distinct(outside))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({clean for text in texts if (clean := " ".join(text.split()))}))
