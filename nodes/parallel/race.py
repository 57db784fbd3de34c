"""Races: the first branch with a good answer ends the others.

The branches of a run are tasks of one super-step, which ends when all of them have. So a loser is ended from
within: its time limit is moved to now, which cancels what it waits for.

A race lives in this process, like the run whose tasks it joins. A run that is resumed elsewhere between the
winner's checkpoint and its losers' begins a new race among the losers alone; each of them still has its time
limit, and the answer that was saved is not lost.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

# A run that is never resumed after a crash leaves its race behind: the oldest give way.
MOST_RACES = 10_000


class Race:
    """The branches of one run, and which of them won."""

    def __init__(self) -> None:
        self.winner = ""
        self._limits: set[asyncio.Timeout] = set()

    @contextmanager
    def running(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Take part, within a time limit that is open and that a win of another moves to now."""
        self._limits.add(limit)
        try:
            yield
        finally:
            self._limits.discard(limit)

    def lost_by(self, name: str) -> bool:
        """Whether another branch has won."""
        return self.winner not in {"", name}

    def won_by(self, name: str) -> bool:
        """Claim the race, and end those that still run. False when another branch was faster."""
        if self.lost_by(name):
            return False
        self.winner = name
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            # One that is over already, while its branch still winds up, cannot be moved.
            if not limit.expired():
                limit.reschedule(now)
        return True


class Races:
    """The races of a graph's runs, by name."""

    def __init__(self) -> None:
        self._races: dict[str, Race] = {}

    def of(self, name: str) -> Race:
        """The race of this name; without a name, one that nobody else runs."""
        if not name:
            return Race()
        race = self._races.setdefault(name, Race())
        if len(self._races) > MOST_RACES:
            del self._races[next(iter(self._races))]
        return race

    def forget(self, name: str) -> None:
        """Drop a race that is over."""
        self._races.pop(name, None)
