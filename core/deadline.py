"""The time that is left for what a caller waits for, shared by every call on the way.

Whoever accepts a request sets the deadline; models, the CRM's client, memory and embeddings ask how much is
left of it. A context variable carries it, so that a run's task and the tasks it starts have it too. Part of
the time is a reserve: work ends before it, so that a failure can still be told and handed over.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

from tenacity import RetryCallState
from tenacity.stop import stop_base
from typing_extensions import override

# What is inside :func:`timeout` and keeps to the deadline by itself ends first, with an error of its own.
GRACE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an answer is due.

    Attributes:
        ends_at: ``time.monotonic()`` at its end.
        reserve: Seconds before its end that only :func:`use_reserve` gives access to.
    """

    ends_at: float
    reserve: float = 0.0

    def remaining(self) -> float:
        """Return the seconds left for work, at least 0."""
        return max(0.0, self.ends_at - self.reserve - time.monotonic())


_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def set_deadline(seconds: float | None, *, reserve: float = 0.0) -> None:
    """Set the deadline of this task and of the tasks it starts from now on; ``None``: it has none."""
    _deadline.set(None if seconds is None else Deadline(time.monotonic() + seconds, reserve))


def dump_deadline() -> dict[str, float] | None:
    """Return the deadline as JSON, for whoever goes on with the work elsewhere; ``None``: there is none."""
    deadline = _deadline.get()
    if deadline is None:
        return None
    return {"ends_at": time.time() + deadline.ends_at - time.monotonic(), "reserve": deadline.reserve}


def restore_deadline(dumped: Mapping[str, float] | None) -> None:
    """Set the deadline that was dumped; the reserve is there even where it is over."""
    if dumped:
        left, reserve = dumped["ends_at"] - time.time(), dumped["reserve"]
        set_deadline(max(left, reserve), reserve=reserve)


def remaining() -> float | None:
    """Return the seconds left for work; ``None``: there is no deadline."""
    deadline = _deadline.get()
    return deadline.remaining() if deadline else None


def is_over() -> bool:
    """Return whether no time is left for work."""
    return remaining() == 0


def limit(seconds: float) -> float:
    """Return the time limit of a call: its own, or what is left if that is less."""
    left = remaining()
    return seconds if left is None else min(seconds, left)


class StopAtDeadline(stop_base):
    """Stops tenacity's attempts if the pause before the next one would leave no time for it."""

    @override
    def __call__(self, retry_state: RetryCallState) -> bool:
        left = remaining()
        return left is not None and retry_state.upcoming_sleep >= left


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give everything inside the context so many seconds, or what is left if that is less."""
    token = _deadline.set(Deadline(time.monotonic() + limit(seconds)))
    try:
        yield
    finally:
        _deadline.reset(token)


@asynccontextmanager
async def timeout(seconds: float) -> AsyncIterator[None]:
    """Give everything inside so many seconds, or what is left, and cancel it a moment after them.

    Raises:
        TimeoutError: It was cancelled.
    """
    with within(seconds):
        async with asyncio.timeout(limit(seconds) + GRACE_SECONDS):
            yield


@contextmanager
def use_reserve() -> Iterator[None]:
    """Give everything inside the context the reserve too."""
    deadline = _deadline.get()
    token = _deadline.set(replace(deadline, reserve=0.0) if deadline else None)
    try:
        yield
    finally:
        _deadline.reset(token)
