"""Carry the parts of runs from the replicas that execute them to those where callers follow them.

All runs of a replica that are followed elsewhere share a statement every 50 ms, and all runs that are
followed here share a query, so that the cost grows with the parts and not with the runs. A part travels as
the checkpointer's strict serializer writes it, so that messages arrive as messages.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

import orjson

from checkpoints.saver import build_serializer
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from service.runs.log.run_log import LoggedPart, NumberedPart, RunLog
from service.runs.notifications import Notifications
from service.runs.store import CHANNEL, QUERIES, RunStore

log = get_logger(__name__)

# How long parts gather before they are published, and how often they are looked for without a notification.
PUBLISH_SECONDS: Final = 0.05
POLL_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1.0
_PAGE: Final = 5_000


@dataclass(slots=True, eq=False)
class Subscription:
    """A caller who follows a run of another replica.

    Attributes:
        run_id: The run.
        after: The number of the last part that was received.
        parts: What was received and not taken yet.
    """

    run_id: str
    after: int
    parts: asyncio.Queue[NumberedPart] = field(default_factory=asyncio.Queue)

    async def take(self, seconds: float) -> AsyncIterator[NumberedPart]:
        """Yield what there is, waiting for the first part at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                yield await self.parts.get()
        while not self.parts.empty():
            yield self.parts.get_nowait()


class PartExchange:
    """Publishes the parts of this replica's runs, and receives those of others.

    Args:
        store: The table of runs.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._serializer = build_serializer()
        self._outgoing: dict[RunLog, str] = {}
        self._incoming: dict[str, set[Subscription]] = {}
        self._has_outgoing, self._has_incoming = asyncio.Event(), asyncio.Event()
        self._arrived = asyncio.Event()

    def publish(self, run_id: str, run_log: RunLog) -> None:
        """Publish the parts of a run from its first one to its end, once."""
        if not run_log.is_ended or run_log.published_to < run_log.last:
            self._outgoing[run_log] = run_id
            self._has_outgoing.set()

    @contextmanager
    def subscribe(self, run_id: str, after: int) -> Iterator[Subscription]:
        """Receive the parts of a run after a number, once its replica publishes them."""
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
        """Hear when parts were published."""

        async def look(_: str) -> None:
            self._arrived.set()

        notifications.on("parts", look)

    async def run(self) -> None:
        """Publish and receive until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish_all())
            group.create_task(self._receive_all())

    async def delete_old(self, *, seconds: float) -> None:
        """Delete the published parts of runs that ended so long ago."""
        async with self._store.pool.connection() as connection:
            await connection.execute(QUERIES["delete_parts"], {"seconds": seconds})

    # Publishing

    async def _publish_all(self) -> None:
        while True:
            await self._has_outgoing.wait()
            try:
                await self._publish_new()
            except DATABASE_UNAVAILABLE as error:
                log.warning("parts_not_published", reason=str(error).strip())
                await asyncio.sleep(_RETRY_SECONDS)
            if not self._outgoing:
                self._has_outgoing.clear()
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _publish_new(self) -> None:
        """Publish what has come since the last time, and forget the runs that have ended."""
        batch: list[tuple[str, NumberedPart]] = []
        reached: dict[RunLog, int] = {}
        for run_log, run_id in self._outgoing.items():
            if parts := run_log.read(run_log.published_to):
                batch += ((run_id, part) for part in parts)
            reached[run_log] = run_log.last
        for start in range(0, len(batch), _PAGE):
            await self._insert(batch[start : start + _PAGE])
        for run_log, seq in reached.items():
            run_log.published_to = seq
            if run_log.is_ended and seq == run_log.last:
                del self._outgoing[run_log]

    async def _insert(self, batch: Sequence[tuple[str, NumberedPart]]) -> None:
        values = {
            "runs": [run_id for run_id, _ in batch],
            "seqs": [numbered.seq for _, numbered in batch],
            "times": [numbered.at for _, numbered in batch],
            "parts": [self._dump(numbered.part) for _, numbered in batch],
            "channel": CHANNEL,
        }
        async with self._store.pool.connection() as connection:
            await connection.execute(QUERIES["publish_parts"], values)

    def _dump(self, part: LoggedPart) -> bytes:
        try:
            return self._serializer.dumps_typed(part)[1]
        except (TypeError, ValueError):
            # A node may stream any object: what cannot be stored is sent as the text that callers see anyway.
            data = orjson.loads(orjson.dumps(part["data"], default=str, option=orjson.OPT_NON_STR_KEYS))
            return self._serializer.dumps_typed({**part, "data": data})[1]

    def _load(self, data: bytes) -> LoggedPart:
        part: dict[str, Any] = self._serializer.loads_typed(("msgpack", data))
        # msgpack has no tuples.
        return cast("LoggedPart", {**part, "ns": tuple(part["ns"])})

    # Receiving

    async def _receive_all(self) -> None:
        while True:
            await self._has_incoming.wait()
            self._arrived.clear()
            try:
                while await self._receive_new():
                    pass
            except DATABASE_UNAVAILABLE as error:
                log.warning("parts_not_received", reason=str(error).strip())
                await asyncio.sleep(_RETRY_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._arrived.wait()

    async def _receive_new(self) -> bool:
        """Hand new parts to the subscriptions; return whether there may be more."""
        known = {run_id: min(each.after for each in group) for run_id, group in self._incoming.items()}
        values = {"runs": list(known), "after": list(known.values()), "limit": _PAGE}
        async with self._store.pool.connection() as connection:
            rows = await (await connection.execute(QUERIES["read_parts"], values)).fetchall()
        for row in rows:
            waiting = [each for each in self._incoming.get(row["run_id"], ()) if row["seq"] > each.after]
            if not waiting:
                continue
            numbered = NumberedPart(row["seq"], self._load(row["part"]), row["came_at"])
            for subscription in waiting:
                subscription.after = numbered.seq
                subscription.parts.put_nowait(numbered)
        return len(rows) == _PAGE
