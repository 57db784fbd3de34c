"""The log of a run: what LangGraph streamed, numbered, for whoever follows the run over any API.

The log keeps LangGraph's parts as they came. Each reader makes of them what its API sends, so that a run that
nobody follows costs a reference per part.
"""

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypedDict

from service.runs.output import RunEvents
from service.runs.request import RunPart

# Parts of one attempt at a run are numbered from here, so that those of a later attempt have higher numbers.
ATTEMPT_STEP: Final = 10_000_000
# Parts of one run beyond which the oldest are dropped, and how many at once.
MAX_PARTS: Final = 10_000
_DROPPED_AT_ONCE: Final = 1_000
# Events that one part may become, so that their numbers follow from the part's.
_EVENTS_PER_PART: Final = 1_000
# Parts are at least this many microseconds apart, so that their events have times of their own.
PART_MICROSECONDS: Final = 64


class BoundaryPart(TypedDict):
    """The first and the last part of an attempt.

    Attributes:
        type: ``attempt`` or ``end``.
        ns: Empty.
        data: ``{attempt, stream_mode, subgraphs}`` of the first one, with what the Agent Server API was asked
            for. ``{response, error}`` of the last one: the text that the run answered with, and the typed
            error with which the attempt ended, or ``None``. How the run ended is in its row by then.
    """

    type: Literal["attempt", "end"]
    ns: tuple[()]
    data: dict[str, Any]


LoggedPart: TypeAlias = RunPart | BoundaryPart


def build_attempt_part(
    attempt: int, stream_mode: Sequence[str] = (), *, subgraphs: bool = False
) -> BoundaryPart:
    """Return the first part of an attempt."""
    data = {"attempt": attempt, "stream_mode": list(stream_mode), "subgraphs": subgraphs}
    return {"type": "attempt", "ns": (), "data": data}


def build_end_part(response: str | None, error: Mapping[str, Any] | None = None) -> BoundaryPart:
    """Return the last part of an attempt that answered with a text, with none, or with an error."""
    return {"type": "end", "ns": (), "data": {"response": response, "error": error}}


class NumberedPart(NamedTuple):
    """A part of a run.

    Attributes:
        seq: Strictly increasing within the run, over its attempts too.
        part: The part.
        at: When it came, in microseconds since 1970. Strictly increasing within an attempt.
    """

    seq: int
    part: LoggedPart
    at: int = 0


class RunLog:
    """What one attempt at a run has streamed so far.

    Args:
        attempt: Which attempt.
        keeps_values: Whether it keeps the states too that the run streamed.
        stream_mode: What the Agent Server API was asked for.
        subgraphs: Whether it was asked for the parts of subgraphs.

    Attributes:
        is_ended: Whether nothing more comes.
        published_to: The number of the last part that was published for other replicas; 0: none.
    """

    def __init__(
        self,
        attempt: int,
        *,
        keeps_values: bool = False,
        stream_mode: Sequence[str] = (),
        subgraphs: bool = False,
    ) -> None:
        self.attempt = attempt
        self._keeps_values = keeps_values
        self._first = get_first_seq(attempt)
        # None stands for a part that counts and is not kept.
        self._parts: list[LoggedPart | None] = []
        self._times = array("q")
        self._followers = 0
        self._changed = asyncio.Event()
        self.is_ended = False
        self.published_to = 0
        self._add(build_attempt_part(attempt, stream_mode, subgraphs=subgraphs))

    @property
    def size(self) -> int:
        """Parts that are kept."""
        return len(self._parts)

    @property
    def last(self) -> int:
        """The number of the last part."""
        return self._first + len(self._parts) - 1

    @property
    def latest(self) -> int:
        """When the last part came, in microseconds since 1970."""
        return self._times[-1]

    def take(self, part: RunPart) -> None:
        """Keep a part."""
        self._add(part if self._keeps_values or part["type"] != "values" else None)
        if len(self._parts) > MAX_PARTS + _DROPPED_AT_ONCE:
            self._first += _DROPPED_AT_ONCE
            del self._parts[:_DROPPED_AT_ONCE], self._times[:_DROPPED_AT_ONCE]
        if self._followers:
            self._wake()

    def end(self, response: str | None, error: Mapping[str, Any] | None = None) -> None:
        """Take note that the attempt has ended, with the text it answered with or an error."""
        self._add(build_end_part(response, error))
        self.is_ended = True
        self._wake()

    async def follow(self, after: int) -> AsyncIterator[Sequence[NumberedPart]]:
        """Yield the parts after a number, as they come, until the attempt has ended."""
        self._followers += 1
        try:
            while True:
                changed, is_last = self._changed, self.is_ended
                if parts := self.read(after):
                    after = parts[-1].seq
                    yield parts
                if is_last:
                    return
                await changed.wait()
        finally:
            self._followers -= 1

    def read(self, after: int) -> Sequence[NumberedPart]:
        """Return the parts after a number that there are."""
        start = max(0, after + 1 - self._first)
        return [
            NumberedPart(seq, part, at)
            for seq, (part, at) in enumerate(
                zip(self._parts[start:], self._times[start:], strict=True), self._first + start
            )
            if part is not None
        ]

    def _add(self, part: LoggedPart | None) -> None:
        now, times = time.time_ns() // 1_000, self._times
        if times and now < (earliest := times[-1] + PART_MICROSECONDS):
            now = earliest
        times.append(now)
        self._parts.append(part)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def get_first_seq(attempt: int) -> int:
    """Return the number of the first part of an attempt."""
    return attempt * ATTEMPT_STEP + 1


def build_event_id(seq: int, position: int) -> int:
    """Return the id of one of the events that a part becomes; it increases over the attempts of the run."""
    return seq * _EVENTS_PER_PART + min(position, _EVENTS_PER_PART - 1)


def find_attempt_start(event_id: int) -> int:
    """Return the number after which the parts of an event's attempt come.

    What an event is depends on the parts before, so that a reader who goes on begins with these.
    """
    return max(0, event_id // _EVENTS_PER_PART // ATTEMPT_STEP * ATTEMPT_STEP)


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event of a run, as the API of ``/v1`` sends it.

    Attributes:
        id: See :func:`build_event_id`.
        name: ``attempt``, or see :class:`service.runs.output.RunEvents`.
        data: As JSON.
    """

    id: int
    name: str
    data: Any


class NumberedEvents:
    """Make the numbered events of ``/v1`` of a run's parts, read from :func:`find_attempt_start`.

    Args:
        after: The id of the last event that the caller has; 0: none.
    """

    def __init__(self, after: int = 0) -> None:
        self._after = after
        self._events = RunEvents()

    def convert(self, numbered: NumberedPart) -> Iterator[NumberedEvent]:
        """Yield the events of a part that the caller does not have."""
        for position, (name, data) in enumerate(self._list_events(numbered.part)):
            event_id = build_event_id(numbered.seq, position)
            if event_id > self._after:
                yield NumberedEvent(event_id, name, data)

    def _list_events(self, part: LoggedPart) -> Iterator[tuple[str, Any]]:
        if part["type"] == "attempt":
            self._events = RunEvents()
            yield "attempt", {"attempt": part["data"]["attempt"]}
        elif part["type"] == "end":
            if (response := part["data"]["response"]) is not None:
                yield from self._events.finish(response)
        else:
            yield from self._events.convert(part)
