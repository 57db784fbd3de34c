"""What is kept of a thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from core.settings import RetentionSettings

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept of the threads of a graph.

    Attributes:
        text: As it was written, e.g. ``keep_last:20,delete_after:90d``.
        keep: How many of the newest checkpoints stay; ``None``: all.
        delete_after: Idle time after which a thread is erased; ``None``: never.
    """

    text: str
    keep: int | None = None
    delete_after: timedelta | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a policy; the settings have checked how it is written."""
        keep, delete_after = None, None
        for part in text.split(","):
            name, _, value = part.partition(":")
            match name:
                case "keep_latest":
                    keep = 1
                case "keep_last":
                    keep = int(value)
                case "delete_after":
                    delete_after = timedelta(**{_UNITS[value[-1]]: int(value[:-1])})
        return cls(text, keep, delete_after)

    @property
    def keeps_all(self) -> bool:
        """Whether nothing ever goes."""
        return self.keep is None and self.delete_after is None


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy of each graph, and of all others."""

    default: Policy
    per_graph: Mapping[str, Policy]

    @classmethod
    def of(cls, settings: RetentionSettings) -> Self:
        """As the settings say."""
        return cls(
            Policy.parse(settings.policy),
            {graph: Policy.parse(text) for graph, text in settings.per_graph.items()},
        )

    def of_graph(self, graph: str | None) -> Policy:
        """The policy of a graph's threads; ``None`` is a thread whose graph is not known."""
        return self.per_graph.get(graph or "", self.default)

    @property
    def keep_all(self) -> bool:
        """Whether nothing ever goes, of no graph."""
        return self.default.keeps_all and all(policy.keeps_all for policy in self.per_graph.values())
