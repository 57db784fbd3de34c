"""A semaphore that shares its slots fairly between the owners who wait for one."""

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal, TypeAlias

SchedulingPolicy: TypeAlias = Literal["fifo", "priority", "fair_share"]

# Owners that have asked within this time share the slots.
_RECENT_SECONDS: Final = 60.0


class SlotUnavailable(Exception):
    """Raised when no slot comes free in time, or when too many callers of the same owner already wait."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A caller in its owner's queue; ``turn`` is done once the caller has a slot."""

    owner: str
    priority: int
    owner_limit: int
    arrival: int
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairSemaphore:
    """A bounded number of slots, handed out by policy to the owners (tenants, workflows) that wait.

    ``fifo`` serves callers in order of arrival. ``priority`` serves the highest priority first, then the
    order of arrival. ``fair_share`` serves the owner that holds the fewest slots, then the one served longest
    ago: an owner with one request is not delayed by another's batch of thousands (max-min fairness; Bertsekas
    and Gallager 1992, "Data Networks", 6.5.2). Callers of one owner are served in order of arrival, except
    under ``priority``, where an owner is expected to have one priority.

    The empty owner stands for work that is nobody's in particular.

    Args:
        limit: Slots in all.
        policy: Whose turn is next when a slot comes free.
        owner_limit: Slots that one owner may hold at once. ``None``: all of them.
        shared_limit: The same while several owners have asked within the last minute, so that another one
            need not wait for a slot to be given back. ``None``: the owner limit.
        timeout: Seconds that a caller waits for a slot. ``None``: without a limit.
        queue_length: Callers of one owner that may wait at once. ``None``: without a limit.
    """

    def __init__(
        self,
        limit: int,
        policy: SchedulingPolicy = "fair_share",
        *,
        owner_limit: int | None = None,
        shared_limit: int | None = None,
        timeout: float | None = None,
        queue_length: int | None = None,
    ) -> None:
        self.limit = limit
        self.policy: SchedulingPolicy = policy
        self.owner_limit = owner_limit or limit
        self._shared_limit = shared_limit or self.owner_limit
        # Who asked last, and since when all have been that owner.
        self._latest = ""
        self._latest_since = -math.inf
        self._timeout = timeout
        self._queue_length = queue_length
        self._held: Counter[str] = Counter()
        # Ordered dictionaries remove a caller who leaves, and the first one, in constant time.
        self._queues: dict[str, OrderedDict[_Waiter, None]] = {}
        self._last_turns: dict[str, int] = {}
        self._arrivals = count()
        self._turns = count()
        self._active = self._waiting = 0

    @property
    def active(self) -> int:
        """Slots that are held."""
        return self._active

    @property
    def waiting(self) -> int:
        """Callers that wait for a slot."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether every slot is held."""
        return self._active >= self.limit

    def held_by(self, owner: str) -> int:
        """Return how many slots an owner holds."""
        return self._held[owner]

    @asynccontextmanager
    async def slot(
        self, owner: str, *, priority: int = 0, owner_limit: int | None = None
    ) -> AsyncIterator[None]:
        """Hold a slot while the context is open; see :meth:`acquire`."""
        await self.acquire(owner, priority=priority, owner_limit=owner_limit)
        try:
            yield
        finally:
            self.release(owner)

    async def acquire(self, owner: str, *, priority: int = 0, owner_limit: int | None = None) -> None:
        """Take a slot, waiting for it if necessary. A cancelled caller leaves the queue.

        Args:
            owner: Who the slot is for.
            priority: Of the owner, for the policy ``priority``; higher is served first.
            owner_limit: Slots this owner may hold at once. ``None``: the semaphore's.

        Raises:
            SlotUnavailable: None came free in time, or too many callers of this owner wait already.
        """
        if self.try_acquire(owner, owner_limit=owner_limit):
            return
        queue = self._queues.get(owner, ())
        if self._queue_length is not None and len(queue) >= self._queue_length:
            self._forget_if_idle(owner)
            raise SlotUnavailable(f"{len(queue)} callers of {owner!r} wait already")
        waiter = _Waiter(owner, priority, owner_limit or self.owner_limit, next(self._arrivals))
        self._queues.setdefault(owner, OrderedDict())[waiter] = None
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout):
                await waiter.turn
        except TimeoutError:
            self._leave(waiter)
            raise SlotUnavailable(f"no slot came free for {owner!r} within {self._timeout:g} s") from None
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def try_acquire(self, owner: str, *, owner_limit: int | None = None) -> bool:
        """Take a slot if one is free for this owner now, and return whether it was."""
        if owner and owner != self._latest:
            self._latest_since = time.monotonic() if self._latest else -math.inf
            self._latest = owner
        limit = owner_limit or self.owner_limit
        if self._queues.get(owner) or self.is_full or self._held[owner] >= self._bound(limit):
            self._forget_if_idle(owner)
            return False
        # Whoever else waits is kept back by its owner's limit.
        self._hand_slot_to(owner)
        return True

    def release(self, owner: str) -> None:
        """Give back a slot that :meth:`acquire` or :meth:`try_acquire` took for this owner."""
        self._active -= 1
        self._held[owner] -= 1
        self._forget_if_idle(owner)
        self._serve()

    def _serve(self) -> None:
        while not self.is_full and (waiter := self._next_waiter()) is not None:
            self._remove(waiter)
            self._hand_slot_to(waiter.owner)
            if not waiter.turn.done():
                waiter.turn.set_result(None)

    def _next_waiter(self) -> _Waiter | None:
        heads = (next(iter(queue)) for queue in self._queues.values())
        eligible = (head for head in heads if self._held[head.owner] < self._bound(head.owner_limit))
        return min(eligible, key=self._rank, default=None)

    def _bound(self, owner_limit: int) -> int:
        """Return how many slots an owner may hold now."""
        if self._shared_limit >= owner_limit or time.monotonic() - self._latest_since > _RECENT_SECONDS:
            return owner_limit
        return self._shared_limit

    def _rank(self, waiter: _Waiter) -> tuple[int, ...]:
        match self.policy:
            case "fifo":
                return (waiter.arrival,)
            case "priority":
                return (-waiter.priority, waiter.arrival)
            case "fair_share":
                return self._held[waiter.owner], self._last_turns.get(waiter.owner, -1), waiter.arrival

    def _hand_slot_to(self, owner: str) -> None:
        self._active += 1
        self._held[owner] += 1
        self._last_turns[owner] = next(self._turns)

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._queues.get(waiter.owner, ()):
            self._remove(waiter)
            self._forget_if_idle(waiter.owner)
            # The one behind may have a larger limit of its own.
            self._serve()
        else:
            # The slot was handed over in the moment the caller stopped waiting.
            self.release(waiter.owner)

    def _remove(self, waiter: _Waiter) -> None:
        queue = self._queues[waiter.owner]
        del queue[waiter]
        self._waiting -= 1
        if not queue:
            del self._queues[waiter.owner]

    def _forget_if_idle(self, owner: str) -> None:
        if owner not in self._queues and not self._held[owner]:
            del self._held[owner]
            self._last_turns.pop(owner, None)
