"""Ports for metrics: model calls, tool calls, attempts of agents, and commits of checkpoints.

The service sets the meter of a run where it drives the run (:func:`use_meter`); nodes and models get it where
the work is done (:func:`current_meter`). A context variable carries it, so two services in one process do not
mix, and no builder of a graph has to pass it on. Without a meter nothing is counted.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias

ModelOutcome: TypeAlias = Literal["answered", "unavailable", "refused", "broken_off"]
AttemptOutcome: TypeAlias = Literal["answered", "failed", "timed_out", "interrupted"]

# Label in place of the graph's name for work that belongs to no run.
BACKGROUND: Final = "background"


@dataclass(slots=True)
class Attempt:
    """The outcome of an agent's attempt at a message; ``interrupted`` until it is known."""

    outcome: AttemptOutcome = "interrupted"


class Meter(Protocol):
    """Counts what happens in a run."""

    @property
    def tokens(self) -> Mapping[str, tuple[int, int]]:
        """Input and output tokens by model, as providers counted them."""
        ...

    def record_first_token(self) -> None:
        """Record that a model began to reply; only the first reply of a run counts."""
        ...

    def record_model_call(
        self, model: str, outcome: ModelOutcome, seconds: float, *, input_tokens: int, output_tokens: int
    ) -> None:
        """Record one attempt at a model call.

        Args:
            model: ``provider:model``.
            outcome: How it ended.
            seconds: From the request to the end of the reply.
            input_tokens: As counted by the provider; 0 if it did not count.
            output_tokens: As counted by the provider; 0 if it did not count.
        """
        ...

    def record_tool_call(self, tool: str, outcome: str, seconds: float) -> None:
        """Record a tool call; for an unknown tool the name is a constant, not what the model wrote."""
        ...

    def track_agent(self, name: str) -> AbstractContextManager[Attempt]:
        """Record what is done inside the context as an agent's attempt; the caller sets its outcome."""
        ...


class NoMeter:
    """Counts nothing."""

    tokens: Final[Mapping[str, tuple[int, int]]] = MappingProxyType({})

    def record_first_token(self) -> None:
        """Do nothing."""

    def record_model_call(
        self, model: str, outcome: ModelOutcome, seconds: float, *, input_tokens: int, output_tokens: int
    ) -> None:
        """Do nothing."""

    def record_tool_call(self, tool: str, outcome: str, seconds: float) -> None:
        """Do nothing."""

    @contextmanager
    def track_agent(self, name: str) -> Iterator[Attempt]:  # noqa: ARG002
        """Record nothing."""
        yield Attempt()


_METER: ContextVar[Meter] = ContextVar("meter", default=NoMeter())  # noqa: B039 - it has no state


def current_meter() -> Meter:
    """Return the meter of the run in progress."""
    return _METER.get()


@contextmanager
def use_meter(meter: Meter) -> Iterator[None]:
    """Use a meter for everything inside the context, and for the tasks that are started in it."""
    token = _METER.set(meter)
    try:
        yield
    finally:
        _METER.reset(token)


class CommitMeter(Protocol):
    """Counts the group commits of the checkpointer."""

    def record_commit(self, *, writes: int, rows: int, seconds: float) -> None:
        """Record that a group of writes (calls of the saver) and their rows was committed."""
        ...

    def record_failure(self) -> None:
        """Record an attempt at a commit that failed."""
        ...


class NoCommitMeter:
    """Counts nothing."""

    def record_commit(self, *, writes: int, rows: int, seconds: float) -> None:
        """Do nothing."""

    def record_failure(self) -> None:
        """Do nothing."""
