"""Notice that runs begin and end on the threads that are followed on this replica."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from service.runs.store import RunStore

log = get_logger(__name__)

# How soon a run that begins on another replica is noticed, and a failed search is repeated.
_POLL_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)
class _Watch:
    """Somebody waits for the next run of a thread."""

    thread_id: str
    changed: asyncio.Event


class ThreadActivity:
    """Wakes those who wait for the next run of a thread.

    All of them share a query, so that the cost does not grow with the connections that wait.

    Args:
        store: The table of runs.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._watches: dict[str, set[_Watch]] = {}
        self._latest: dict[str, datetime | None] = {}
        self._has_watches = asyncio.Event()

    @contextmanager
    def watch(self, thread_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever a run may have begun or ended on a thread."""
        watch = _Watch(thread_id, asyncio.Event())
        self._watches.setdefault(thread_id, set()).add(watch)
        self._has_watches.set()
        try:
            yield watch.changed
        finally:
            self._watches[thread_id].discard(watch)
            if not self._watches[thread_id]:
                del self._watches[thread_id]
                self._latest.pop(thread_id, None)
            if not self._watches:
                self._has_watches.clear()

    def wake(self, thread_id: str) -> None:
        """Take note that a run has begun here."""
        for watch in self._watches.get(thread_id, ()):
            watch.changed.set()

    async def run(self) -> None:
        """Look at the runs of other replicas until cancelled."""
        while True:
            await self._has_watches.wait()
            seconds = _POLL_SECONDS
            try:
                latest = await self._store.load_activity(list(self._watches))
            except DATABASE_UNAVAILABLE as error:
                log.warning("threads_not_watched", reason=str(error).strip())
                seconds = _RETRY_SECONDS
            else:
                for thread_id, at in latest.items():
                    if self._latest.get(thread_id) != at:
                        self._latest[thread_id] = at
                        self.wake(thread_id)
            await asyncio.sleep(seconds)
