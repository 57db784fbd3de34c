"""The events of a run, numbered: what a caller who follows it reads."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.runs.output import RunEvents
from service.runs.request import RunPart

# Events of one attempt at a run are numbered from here, so that those of a later attempt have higher numbers.
ATTEMPT_STEP: Final = 10_000_000
# The number of the first event of a run, which announces the attempt.
FIRST_EVENT: Final = ATTEMPT_STEP + 1
# Parts of one run beyond which events are made at once and the oldest are dropped.
MAX_PARTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event of a run.

    Attributes:
        seq: Strictly increasing within the run, over its attempts too.
        name: See :class:`service.runs.output.RunEvents`.
        data: As JSON.
    """

    seq: int
    name: str
    data: Any


class RunLog:
    """What one attempt at a run has streamed so far. Events are made of its parts once somebody reads them.

    Args:
        attempt: Which attempt.

    Attributes:
        is_ended: Whether nothing more comes.
        published_to: The number of the last event that was published for other replicas; 0: none.
    """

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._base = attempt * ATTEMPT_STEP
        self._parts: list[RunPart] = []
        self._events: list[NumberedEvent] = []
        self._dropped = 0
        self._converter = RunEvents()
        self._followers = 0
        self._changed = asyncio.Event()
        self._response: str | None = None
        self.is_ended = False
        self.published_to = 0
        self._add("attempt", {"attempt": attempt})

    @property
    def last(self) -> int:
        """The number that closes the attempt, higher than those of its events."""
        return self._base + ATTEMPT_STEP - 1

    @property
    def size(self) -> int:
        """Parts and events that are kept."""
        return len(self._parts) + len(self._events)

    def take(self, part: RunPart) -> None:
        """Keep a part; the values of states are not events."""
        if part["type"] == "values":
            return
        self._parts.append(part)
        if len(self._parts) > MAX_PARTS:
            self._convert()
        if self._followers:
            self._wake()

    def end(self, response: str | None) -> None:
        """Take note that the attempt has ended, and of the text it answered with, if it did."""
        self.is_ended, self._response = True, response
        self._wake()

    async def follow(self, after: int) -> AsyncIterator[Sequence[NumberedEvent]]:
        """Yield the events after a number, as they come, until the attempt has ended."""
        self._followers += 1
        try:
            while True:
                changed = self._changed
                is_last = self.is_ended
                if events := self.read(after):
                    after = events[-1].seq
                    yield events
                if is_last:
                    return
                await changed.wait()
        finally:
            self._followers -= 1

    def read(self, after: int) -> Sequence[NumberedEvent]:
        """Return the events after a number that there are."""
        self._convert()
        return self._events[max(0, after - self._base - self._dropped) :]

    def _convert(self) -> None:
        for part in self._parts:
            for name, data in self._converter.convert(part):
                self._add(name, data)
        self._parts.clear()
        if self.is_ended and self._response is not None:
            for name, data in self._converter.finish(self._response):
                self._add(name, data)
            self._response = None
        if len(self._events) > MAX_PARTS:
            self._dropped += len(self._events) - MAX_PARTS
            del self._events[: len(self._events) - MAX_PARTS]

    def _add(self, name: str, data: Any) -> None:
        number = self._base + self._dropped + len(self._events) + 1
        self._events.append(NumberedEvent(number, name, data))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
