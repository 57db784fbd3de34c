"""Follow runs on any replica: from the memory of this one, or through Postgres from another.

A replica keeps the parts of its runs. Where a caller follows on another replica, the executing one publishes
them in Postgres from then on.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from service.runs.log.part_exchange import PartExchange, Subscription
from service.runs.log.run_log import NumberedPart, RunLog
from service.runs.log.thread_activity import ThreadActivity
from service.runs.notifications import Notifications
from service.runs.store import RunStore

# Parts of all ended runs that are kept in memory at most, and for how long these and published ones are.
MAX_ENDED_PARTS: Final = 20_000
KEEP_SECONDS: Final = 120
# How long a follower waits for parts before it looks whether the run has ended, and for the last parts of one
# that has.
_PATIENCE_SECONDS: Final = 0.5
_END_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Position:
    """How far a follower is.

    Attributes:
        after: The number of the last part it has.
        is_complete: Whether it has all parts of the attempt.
        give_up_at: When to wait no longer for the last parts of a run that has ended.
    """

    after: int
    is_complete: bool = False
    give_up_at: float = math.inf


class RunFollowers:
    """Follows runs of this replica and of others.

    Args:
        store: The table of runs.
        exchange: Carries parts between replicas.

    Attributes:
        activity: Wakes those who wait for a thread's next run.
    """

    def __init__(self, store: RunStore, exchange: PartExchange) -> None:
        self._store = store
        self._exchange = exchange
        self._logs: dict[str, RunLog] = {}
        # In the order in which they ended, and their parts.
        self._ended: deque[tuple[str, RunLog]] = deque()
        self._ended_parts = 0
        self.activity = ThreadActivity(store)

    def listen(self, notifications: Notifications) -> None:
        """Hear which runs are followed on other replicas."""

        async def publish(run_id: str) -> None:
            if run_log := self._logs.get(run_id):
                self._exchange.publish(run_id, run_log)

        notifications.on("follow", publish)

    def open_log(self, run_id: str, thread_id: str, run_log: RunLog) -> None:
        """Keep the log of a run that begins here."""
        self._logs[run_id] = run_log
        self.activity.wake(thread_id)

    def end_log(
        self, run_id: str, run_log: RunLog, response: str | None, error: Mapping[str, Any] | None
    ) -> None:
        """End the log of a run, with the text it answered with or an error, and keep it for a while."""
        run_log.end(response, error)
        self._ended.append((run_id, run_log))
        self._ended_parts += run_log.size
        kept_from = time.time_ns() // 1_000 - KEEP_SECONDS * 1_000_000
        while self._ended and (self._ended_parts > MAX_ENDED_PARTS or self._ended[0][1].latest < kept_from):
            known_id, known = self._ended.popleft()
            self._ended_parts -= known.size
            # A later attempt has a log of its own.
            if self._logs.get(known_id) is known:
                del self._logs[known_id]

    async def follow(self, run_id: str, after: int) -> AsyncIterator[NumberedPart]:
        """Yield the parts of a run after a number, until it has ended and its end is in its row.

        Parts of an ended run are there for a while; later there are none, and its answer is in its row.

        Args:
            run_id: The run.
            after: The number of the last part the caller has; 0: none.
        """
        position = _Position(after)
        while True:
            if run_log := self._logs.get(run_id):
                async for parts in run_log.follow(position.after):
                    for numbered in parts:
                        yield numbered
                        position.after = numbered.seq
                position.is_complete = True
                if await self._is_over(run_id, position):
                    return
            else:
                with self._exchange.subscribe(run_id, position.after) as subscription:
                    async for numbered in self._follow_elsewhere(subscription, position):
                        yield numbered
                if run_id not in self._logs:
                    return

    async def _follow_elsewhere(
        self, subscription: Subscription, position: _Position
    ) -> AsyncIterator[NumberedPart]:
        """Yield the parts of a run that others execute, until it has ended or is executed here."""
        while subscription.run_id not in self._logs:
            if await self._is_over(subscription.run_id, position):
                return
            goes_on = True
            while goes_on:
                goes_on = False
                async for numbered in subscription.take(_PATIENCE_SECONDS):
                    position.after, position.is_complete = numbered.seq, numbered.part["type"] == "end"
                    position.give_up_at = math.inf
                    goes_on = not position.is_complete
                    yield numbered

    async def _is_over(self, run_id: str, position: _Position) -> bool:
        """Return whether no more parts come; if not, ask the replica that has them to publish them."""
        row = await self._store.get(run_id)
        if row is None or (row.ended_at and (position.is_complete or time.monotonic() > position.give_up_at)):
            return True
        if row.ended_at and row.attempt == 0:
            # It was cancelled before it began.
            return True
        if row.ended_at and datetime.now(UTC) - row.ended_at > timedelta(seconds=KEEP_SECONDS):
            return True
        if row.ended_at:
            position.give_up_at = min(position.give_up_at, time.monotonic() + _END_SECONDS)
        elif position.is_complete:
            position.is_complete = False
            run_log = self._logs.get(run_id)
            if run_log and row.status == "running" and row.attempt == run_log.attempt:
                # Its end could not be recorded yet.
                await asyncio.sleep(_PATIENCE_SECONDS)
                return False
            # The run goes on elsewhere.
            self._logs.pop(run_id, None)
        await self._store.notify(f"follow {run_id}")
        return False
