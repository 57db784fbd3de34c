"""Follow all runs of a thread, one after the other, on whichever replicas they are executed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from service.runs.log.followers import KEEP_SECONDS, RunFollowers
from service.runs.log.run_log import NumberedPart
from service.runs.rows import BegunRun, RunRow
from service.runs.store import RunStore

# A client that opens a thread's stream is often about to begin a run: so long it is not shown the last one.
_BEGIN_SECONDS: Final = 0.3
# How soon a stream that waits for a run notices that the service stops.
_STOP_SECONDS: Final = 1.0
# Replicas' clocks may differ by so much from that of the database.
_CLOCKS: Final = timedelta(seconds=60)


class ThreadPart(NamedTuple):
    """A part of one of a thread's runs, or the end of the run.

    Attributes:
        run: The run.
        numbered: The part; ``None``: the run has ended.
        row: The run's row once it has ended; ``None``: it goes on, or was rolled back.
    """

    run: BegunRun
    numbered: NumberedPart | None
    row: RunRow | None = None


class ThreadFollowers:
    """Follows threads.

    Args:
        store: The table of runs.
        followers: Follows their runs.
    """

    def __init__(self, store: RunStore, followers: RunFollowers) -> None:
        self._store = store
        self._followers = followers

    async def follow(
        self, tenant: str, thread_id: str, since: int, *, is_stopping: Callable[[], bool]
    ) -> AsyncIterator[ThreadPart]:
        """Yield the parts of a thread's runs, and how each ended, until the service stops.

        Without a number, that is from the first part of the run that is in progress, or of the latest one if
        it has ended a moment ago.

        Args:
            tenant: Whose runs.
            thread_id: The thread.
            since: The time of the last part that the caller has, in microseconds since 1970; 0: none.
            is_stopping: Returns whether the service is about to stop.
        """
        with self._followers.activity.watch(thread_id) as changed:
            seen = await self._find_old_runs(tenant, thread_id, since, changed)
            while not is_stopping():
                changed.clear()
                for run in await self._store.list_begun(tenant, thread_id):
                    if run.id in seen:
                        continue
                    seen.add(run.id)
                    async for numbered in self._followers.follow(run.id, 0):
                        yield ThreadPart(run, numbered)
                    yield ThreadPart(run, None, await self._store.get(run.id))
                    changed.set()
                while not (changed.is_set() or is_stopping()):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_STOP_SECONDS):
                            await changed.wait()

    async def is_missing_events(self, tenant: str, thread_id: str, since: int) -> bool:
        """Return whether a run has ended after a time, of which the parts are not kept any more."""
        after, kept = _to_time(since) + _CLOCKS, _get_oldest_kept()
        return any(
            run.ended_at and after < run.ended_at < kept
            for run in await self._store.list_begun(tenant, thread_id)
        )

    async def _find_old_runs(
        self, tenant: str, thread_id: str, since: int, changed: asyncio.Event
    ) -> set[str]:
        """Return the runs that the caller is not interested in."""
        begun = await self._store.list_begun(tenant, thread_id)
        if since:
            after = max(_get_oldest_kept(), _to_time(since) - _CLOCKS)
            return {run.id for run in begun if run.ended_at and run.ended_at < after}
        ended = [run for run in begun if run.ended_at]
        seen = {run.id for run in ended}
        if (
            ended
            and len(ended) == len(begun)
            and not await self._begins_soon(tenant, thread_id, seen, changed)
        ):
            latest = ended[-1]
            if latest.ended_at and latest.ended_at > _get_oldest_kept():
                seen.remove(latest.id)
        return seen

    async def _begins_soon(
        self, tenant: str, thread_id: str, known: set[str], changed: asyncio.Event
    ) -> bool:
        """Return whether a run that is not known begins within a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_BEGIN_SECONDS):
                while known.issuperset(run.id for run in await self._store.list_begun(tenant, thread_id)):
                    changed.clear()
                    await changed.wait()
                return True
        return False


def _get_oldest_kept() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=KEEP_SECONDS)


def _to_time(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
