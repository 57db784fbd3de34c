"""Carry the events of runs from the replicas that execute them to those where callers follow them.

All runs of a replica that are followed elsewhere share a statement every 50 ms, and all runs that are
followed here share a query, so that the cost grows with the events and not with the runs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import orjson

from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from service.runs.events import NumberedEvent, RunLog
from service.runs.notifications import Notifications
from service.runs.store import CHANNEL, QUERIES, RunStore

log = get_logger(__name__)

# Marks the end of an attempt among the published events.
END: Final = "end"
# How long events gather before they are published, and how often they are looked for without a notification.
PUBLISH_SECONDS: Final = 0.05
POLL_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1.0
_PAGE: Final = 5_000


@dataclass(slots=True, eq=False)
class Subscription:
    """A caller who follows a run of another replica.

    Attributes:
        run_id: The run.
        after: The number of the last event that was received.
        events: What was received and not taken yet.
    """

    run_id: str
    after: int
    events: asyncio.Queue[NumberedEvent] = field(default_factory=asyncio.Queue)

    async def take(self, seconds: float) -> AsyncIterator[NumberedEvent]:
        """Yield what there is, waiting for the first event at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                yield await self.events.get()
        while not self.events.empty():
            yield self.events.get_nowait()


class EventExchange:
    """Publishes events of this replica's runs, and receives those of others.

    Args:
        store: The table of runs.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._outgoing: dict[RunLog, str] = {}
        self._incoming: dict[str, set[Subscription]] = {}
        self._has_outgoing, self._has_incoming = asyncio.Event(), asyncio.Event()
        self._arrived = asyncio.Event()

    def publish(self, run_id: str, run_log: RunLog) -> None:
        """Publish the events of a run from its first one to its end, once."""
        if run_log.published_to < run_log.last:
            self._outgoing[run_log] = run_id
            self._has_outgoing.set()

    @contextmanager
    def subscribe(self, run_id: str, after: int) -> Iterator[Subscription]:
        """Receive the events of a run after a number, once its replica publishes them."""
        subscription = Subscription(run_id, after)
        self._incoming.setdefault(run_id, set()).add(subscription)
        self._has_incoming.set()
        self._arrived.set()
        try:
            yield subscription
        finally:
            self._incoming[run_id].discard(subscription)
            if not self._incoming[run_id]:
                del self._incoming[run_id]
            if not self._incoming:
                self._has_incoming.clear()

    def listen(self, notifications: Notifications) -> None:
        """Hear when events were published."""

        async def look(_: str) -> None:
            self._arrived.set()

        notifications.on("events", look)

    async def run(self) -> None:
        """Publish and receive until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish_all())
            group.create_task(self._receive_all())

    async def delete_old(self, *, seconds: float) -> None:
        """Delete the events of runs that ended so long ago."""
        async with self._store.pool.connection() as connection:
            await connection.execute(QUERIES["delete_events"], {"seconds": seconds})

    # Publishing

    async def _publish_all(self) -> None:
        while True:
            await self._has_outgoing.wait()
            try:
                await self._publish_new()
            except DATABASE_UNAVAILABLE as error:
                log.warning("events_not_published", reason=str(error).strip())
                await asyncio.sleep(_RETRY_SECONDS)
            if not self._outgoing:
                self._has_outgoing.clear()
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _publish_new(self) -> None:
        """Publish what has come since the last time, and forget the runs that have ended."""
        batch: list[tuple[str, NumberedEvent]] = []
        reached: dict[RunLog, int] = {}
        for run_log, run_id in self._outgoing.items():
            is_ended = run_log.is_ended
            events = [*run_log.read(run_log.published_to)]
            if is_ended:
                events.append(NumberedEvent(run_log.last, END, None))
            if events:
                batch += ((run_id, event) for event in events)
                reached[run_log] = events[-1].seq
        for start in range(0, len(batch), _PAGE):
            await self._insert(batch[start : start + _PAGE])
        for run_log, seq in reached.items():
            run_log.published_to = seq
            if seq == run_log.last:
                del self._outgoing[run_log]

    async def _insert(self, batch: Sequence[tuple[str, NumberedEvent]]) -> None:
        values = {
            "runs": [run_id for run_id, _ in batch],
            "seqs": [event.seq for _, event in batch],
            "names": [event.name for _, event in batch],
            "data": [orjson.dumps(event.data, default=str).decode() for _, event in batch],
            "channel": CHANNEL,
        }
        async with self._store.pool.connection() as connection:
            await connection.execute(QUERIES["publish_events"], values)

    # Receiving

    async def _receive_all(self) -> None:
        while True:
            await self._has_incoming.wait()
            self._arrived.clear()
            try:
                while await self._receive_new():
                    pass
            except DATABASE_UNAVAILABLE as error:
                log.warning("events_not_received", reason=str(error).strip())
                await asyncio.sleep(_RETRY_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._arrived.wait()

    async def _receive_new(self) -> bool:
        """Hand new events to the subscriptions; return whether there may be more."""
        known = {run_id: min(each.after for each in group) for run_id, group in self._incoming.items()}
        values = {"runs": list(known), "after": list(known.values()), "limit": _PAGE}
        async with self._store.pool.connection() as connection:
            rows = await (await connection.execute(QUERIES["read_events"], values)).fetchall()
        for row in rows:
            event = NumberedEvent(row["seq"], row["name"], row["data"])
            for subscription in self._incoming.get(row["run_id"], ()):
                if event.seq > subscription.after:
                    subscription.after = event.seq
                    subscription.events.put_nowait(event)
        return len(rows) == _PAGE
