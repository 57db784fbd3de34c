"""Ports for metrics: model calls, tool calls, attempts of agents, and commits of checkpoints.

The service sets the meter of a run where it drives the run (:func:`use_meter`); nodes and models get it where
the work is done (:func:`current_meter`). A context variable carries it, so two services in one process do not
mix, and no builder of a graph has to pass it on. Without a meter nothing is counted.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

ModelOutcome: TypeAlias = Literal["answered", "unavailable", "refused", "broken_off"]
AttemptOutcome: TypeAlias = Literal["answered", "failed", "timed_out", "interrupted"]

# Where the service works without a run: the label that stands for the graph.
BACKGROUND: Final = "background"


@dataclass(slots=True)
class Attempt:
    """An agent's attempt at a message; what leaves its block before it was judged was interrupted."""

    outcome: AttemptOutcome = "interrupted"


class Meter(Protocol):
    """Counts what happens in a run."""

    def record_first_token(self) -> None:
        """A model began to reply; only the first of a run counts."""
        ...

    def record_model_call(
        self, model: str, outcome: ModelOutcome, seconds: float, *, input_tokens: int, output_tokens: int
    ) -> None:
        """One attempt at a model call.

        Args:
            model: ``provider:model``.
            outcome: What came of it.
            seconds: From the request to the end of the reply.
            input_tokens: As the provider counted them; 0 where it did not.
            output_tokens: The same.
        """
        ...

    def record_tool_call(self, tool: str, outcome: str, seconds: float) -> None:
        """A tool call; of a tool that does not exist, the name is not what the model wrote."""
        ...

    def track_agent(self, name: str) -> AbstractContextManager[Attempt]:
        """A block in which a specialised agent works; the outcome is set inside it."""
        ...


class NoMeter:
    """Counts nothing."""

    def record_first_token(self) -> None:
        """Nothing."""

    def record_model_call(
        self, model: str, outcome: ModelOutcome, seconds: float, *, input_tokens: int, output_tokens: int
    ) -> None:
        """Nothing."""

    def record_tool_call(self, tool: str, outcome: str, seconds: float) -> None:
        """Nothing."""

    @contextmanager
    def track_agent(self, name: str) -> Iterator[Attempt]:  # noqa: ARG002
        """Nothing but the block."""
        yield Attempt()


_METER: ContextVar[Meter] = ContextVar("meter", default=NoMeter())  # noqa: B039 - it has no state


def current_meter() -> Meter:
    """Return the meter of the run in progress."""
    return _METER.get()


@contextmanager
def use_meter(own: Meter) -> Iterator[None]:
    """Have everything inside the block, and the tasks it begins, counted by this meter."""
    token = _METER.set(own)
    try:
        yield
    finally:
        _METER.reset(token)


class CommitMeter(Protocol):
    """Counts the checkpointer's groups."""

    def record_commit(self, *, writes: int, rows: int, seconds: float) -> None:
        """A group of so many writes (calls) and rows was committed."""
        ...

    def record_failure(self) -> None:
        """A group was not committed at this attempt."""
        ...


class NoCommitMeter:
    """Counts nothing."""

    def record_commit(self, *, writes: int, rows: int, seconds: float) -> None:
        """Nothing."""

    def record_failure(self) -> None:
        """Nothing."""
