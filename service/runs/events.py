"""The events of runs, for callers who follow a run that they did not start, on any replica.

A replica keeps the parts of its runs, and makes events of them only once somebody follows. Where a caller
follows on another replica, the executing one publishes the events in Postgres from then on.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from service.runs.notifications import Notifications
from service.runs.output import RunEvents
from service.runs.request import RunPart
from service.runs.store import CHANNEL, QUERIES, RunStore

log = get_logger(__name__)

# Events of one attempt at a run are numbered from here, so that those of a later attempt have higher numbers.
ATTEMPT_STEP: Final = 10_000_000
# The number of the first event of a run, which announces the attempt.
FIRST_EVENT: Final = ATTEMPT_STEP + 1
# Parts of one run beyond which events are made at once and the oldest are dropped.
MAX_PARTS: Final = 10_000
# Parts of all ended runs that are kept, and for how long published events are.
MAX_ENDED_PARTS: Final = 20_000
KEEP_SECONDS: Final = 120
# How long events gather before they are published, and how often a follower looks for them by itself.
_PUBLISH_SECONDS: Final = 0.05
_POLL_SECONDS: Final = 0.5
_PAGE: Final = 500
# Marks the end of an attempt among published events, and how long it is waited for once the run has ended.
_END: Final = "end"
_END_SECONDS: Final = 1.0


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
    """What one attempt at a run has streamed so far.

    Args:
        attempt: Which attempt.
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
                self._convert()
                if events := self._events[max(0, after - self._base - self._dropped) :]:
                    after = events[-1].seq
                    yield events
                if is_last:
                    return
                await changed.wait()
        finally:
            self._followers -= 1

    def _convert(self) -> None:
        for part in self._parts:
            for name, data in self._converter.convert(part):
                self._add(name, data)
        self._parts.clear()
        if self.is_ended and self._response is not None:
            for name, data in self._converter.finish(self._response):
                self._add(name, data)
        if len(self._events) > MAX_PARTS:
            self._dropped += len(self._events) - MAX_PARTS
            del self._events[: len(self._events) - MAX_PARTS]

    def _add(self, name: str, data: Any) -> None:
        number = self._base + self._dropped + len(self._events) + 1
        self._events.append(NumberedEvent(number, name, data))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(slots=True, eq=False)
class _Follower:
    """A caller who follows a run.

    Attributes:
        run_id: The run.
        after: The number of the last event it has.
        is_complete: Whether it has all events of the attempt.
        give_up_at: When to wait no longer for the last events of a run that has ended.
        arrived: Set when there may be more.
    """

    run_id: str
    after: int
    is_complete: bool = False
    give_up_at: float = math.inf
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self.arrived.wait()
        self.arrived.clear()


class RunFollowers:
    """Follows runs of this replica and of others.

    Args:
        store: The table of runs.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._logs: OrderedDict[str, RunLog] = OrderedDict()
        self._publishing: dict[RunLog, asyncio.Task[None]] = {}
        self._followers: dict[str, set[_Follower]] = {}

    def open_log(self, run_id: str, attempt: int) -> RunLog:
        """Return the log of a run that begins here."""
        ended = sum(known.size for known in self._logs.values() if known.is_ended)
        for known_id, known in list(self._logs.items()):
            if ended <= MAX_ENDED_PARTS:
                break
            if known.is_ended:
                ended -= known.size
                del self._logs[known_id]
        opened = self._logs[run_id] = RunLog(attempt)
        return opened

    async def follow(self, run_id: str, after: int) -> AsyncIterator[NumberedEvent]:
        """Yield the events of a run after a number, until it has ended.

        Events of an ended run are there for a while; later there are none, and its answer is in its row.

        Args:
            run_id: The run.
            after: The number of the last event the caller has; 0: none.
        """
        follower = _Follower(run_id, after)
        self._followers.setdefault(run_id, set()).add(follower)
        try:
            while True:
                async for event in self._look(follower):
                    yield event
                if await self._is_over(follower):
                    return
                await follower.wait()
        finally:
            self._followers[run_id].discard(follower)
            if not self._followers[run_id]:
                del self._followers[run_id]

    def subscribe(self, notifications: Notifications) -> None:
        """Hear from other replicas which runs are followed there, and of which events have come."""

        async def publish(run_id: str) -> None:
            self._publish_log(run_id)

        async def look(run_id: str) -> None:
            self.wake(run_id)

        notifications.on("follow", publish)
        notifications.on("events", look)

    def wake(self, run_id: str) -> None:
        """Have the followers of a run look for events, and whether it has ended."""
        for follower in self._followers.get(run_id, ()):
            follower.arrived.set()

    def _publish_log(self, run_id: str) -> None:
        """Publish the events of a run of this replica, which a caller follows on another one."""
        known = self._logs.get(run_id)
        if known is None or known in self._publishing:
            return
        task = self._publishing[known] = asyncio.create_task(self._publish(run_id, known))
        task.add_done_callback(lambda _: self._publishing.pop(known, None))

    async def delete_old(self) -> None:
        """Delete published events that nobody comes back for."""
        async with self._store.pool.connection() as connection:
            await connection.execute(QUERIES["delete_events"], {"seconds": KEEP_SECONDS})

    async def _look(self, follower: "_Follower") -> AsyncIterator[NumberedEvent]:
        """Yield the events that there are: all that will come, where the run is executed here."""
        if run_log := self._logs.get(follower.run_id):
            async for events in run_log.follow(follower.after):
                for event in events:
                    yield event
                    follower.after = event.seq
            follower.is_complete = True
            return
        while True:
            rows = await self._read(follower)
            for event in rows:
                follower.after = event.seq
                follower.is_complete = event.name == _END
                if not follower.is_complete:
                    yield event
            if len(rows) < _PAGE:
                return

    async def _read(self, follower: "_Follower") -> list[NumberedEvent]:
        values = {"run": follower.run_id, "after": follower.after, "limit": _PAGE}
        async with self._store.pool.connection() as connection:
            rows = await (await connection.execute(QUERIES["read_events"], values)).fetchall()
        return [NumberedEvent(row["seq"], row["name"], row["data"]) for row in rows]

    async def _is_over(self, follower: "_Follower") -> bool:
        """Return whether no more events come; if not, ask the replica that has them to publish them."""
        row = await self._store.get(follower.run_id)
        if row is None or (row.ended_at and (follower.is_complete or time.monotonic() > follower.give_up_at)):
            return True
        if row.ended_at:
            follower.give_up_at = min(follower.give_up_at, time.monotonic() + _END_SECONDS)
        elif follower.is_complete:
            follower.is_complete = False
            run_log = self._logs.get(follower.run_id)
            if run_log and (row.attempt, row.status) == (run_log.attempt, "running"):
                # Its end is just being recorded.
                return False
            # The run goes on elsewhere.
            self._logs.pop(follower.run_id, None)
        await self._store.notify(f"follow {follower.run_id}")
        return False

    async def _publish(self, run_id: str, run_log: RunLog) -> None:
        try:
            async for events in run_log.follow(0):
                await self._insert(run_id, events)
                if not run_log.is_ended:
                    # More come meanwhile, and share the next statement.
                    await asyncio.sleep(_PUBLISH_SECONDS)
            await self._insert(run_id, [NumberedEvent(run_log.last, _END, None)])
        except DATABASE_UNAVAILABLE as error:
            # Whoever follows asks again.
            log.warning("events_not_published", run_id=run_id, reason=str(error).strip())

    async def _insert(self, run_id: str, events: Sequence[NumberedEvent]) -> None:
        values = {
            "run": run_id,
            "seqs": [event.seq for event in events],
            "names": [event.name for event in events],
            "data": [orjson.dumps(event.data, default=str).decode() for event in events],
            "channel": CHANNEL,
            "message": f"events {run_id}",
        }
        async with self._store.pool.connection() as connection:
            await connection.execute(QUERIES["publish_events"], values)
