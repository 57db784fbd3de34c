"""Races: the first branch with a good answer cancels the others.

The branches of a run are tasks of one super-step, which ends when all of them have ended. A loser is
therefore cancelled from within: its time limit is moved to now, which cancels whatever it awaits.

A race lives in this process, like the run whose tasks join it. A run that is resumed elsewhere between the
winner's checkpoint and its losers' starts a new race among the losers alone; each of them still has its time
limit, and the saved answer is not lost.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

# A run that is never resumed after a crash leaves its race behind; beyond this many, the oldest are dropped.
MAX_RACES = 10_000


class Race:
    """The branches of one run, and the one that won."""

    def __init__(self) -> None:
        self.winner = ""
        self._limits: set[asyncio.Timeout] = set()

    @contextmanager
    def join(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Take part, within an open time limit that another branch's win moves to now."""
        self._limits.add(limit)
        try:
            yield
        finally:
            self._limits.discard(limit)

    def is_lost_by(self, name: str) -> bool:
        """Return whether another branch has won."""
        return self.winner not in {"", name}

    def claim(self, name: str) -> bool:
        """Claim the win and cancel the branches that still run; ``False`` when another was faster."""
        if self.is_lost_by(name):
            return False
        self.winner = name
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            # A limit that has expired, while its branch still cleans up, cannot be moved.
            if not limit.expired():
                limit.reschedule(now)
        return True


class Races:
    """The races of a graph's runs, by name."""

    def __init__(self) -> None:
        self._races: dict[str, Race] = {}

    def get(self, name: str) -> Race:
        """Return the race of this name, or a new unshared one when the name is empty."""
        if not name:
            return Race()
        race = self._races.setdefault(name, Race())
        if len(self._races) > MAX_RACES:
            del self._races[next(iter(self._races))]
        return race

    def drop(self, name: str) -> None:
        """Forget a race that is over."""
        self._races.pop(name, None)
