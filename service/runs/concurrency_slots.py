"""Places for runs: bounded in all and for each tenant, and given in turn to the tenants that wait."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.errors import TooManyRuns
from core.settings import RunSettings

# Of all places, those that one of several tenants may have.
_SHARE = 4 / 5


class RunSlots:
    """Places for runs.

    A place that comes free goes to the tenant whose turn it is, round robin, so one that asks for a thousand
    runs at once holds another's only up by one. A bound for each tenant keeps places free for the others: a
    run that has begun is not taken back.

    Args:
        total: Runs in progress at once.
        per_tenant: Of one tenant.
        queue_seconds: How long a run waits for a place.
        queue_length: How many runs of one tenant may wait.
    """

    def __init__(self, *, total: int, per_tenant: int, queue_seconds: float, queue_length: int) -> None:
        self._free = total
        self._total = total
        self._per_tenant = per_tenant
        self._queue_seconds = queue_seconds
        self._queue_length = queue_length
        self._running: Counter[str] = Counter()
        # In the order in which tenants have their turn.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def total(self) -> int:
        """Places there are."""
        return self._total

    @property
    def are_taken(self) -> bool:
        """Whether none is free."""
        return not self._free

    @property
    def running(self) -> int:
        """Places taken."""
        return self._total - self._free

    @property
    def waiting(self) -> int:
        """Runs that wait for a place."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def place(self, tenant: str) -> AsyncIterator[None]:
        """Hold a place for a tenant's run, waiting for it if need be.

        Raises:
            TooManyRuns: None came free in time, or too many wait already.
        """
        await self._acquire(tenant)
        try:
            yield
        finally:
            self._release(tenant)

    async def _acquire(self, tenant: str) -> None:
        # Whoever waits could not be given a place, so one that is free is nobody else's.
        if self._free and self._running[tenant] < self._per_tenant:
            self._take(tenant)
            return
        queue = self._waiting.get(tenant, deque())
        if len(queue) >= self._queue_length:
            raise self._refusal(tenant)
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        # Who waits has a queue, and nobody else: a place is given to the first of one.
        self._waiting[tenant] = queue
        try:
            async with asyncio.timeout(self._queue_seconds):
                await turn
        except TimeoutError:
            self._give_up(tenant, turn)
            raise self._refusal(tenant) from None
        except asyncio.CancelledError:
            self._give_up(tenant, turn)
            raise

    def _give_up(self, tenant: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[tenant]
        else:
            # It was given the place in the moment it stopped waiting.
            self._release(tenant)

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._running[tenant] += 1

    def _release(self, tenant: str) -> None:
        self._free += 1
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        if next_one := self._next_tenant():
            self._give_place(next_one)

    def _next_tenant(self) -> str | None:
        """Whose turn it is: of those that wait, the first that may have one more."""
        return next((name for name in self._waiting if self._running[name] < self._per_tenant), None)

    def _give_place(self, tenant: str) -> None:
        # Taken out and put back, it is the last in turn.
        queue = self._waiting.pop(tenant)
        turn = queue.popleft()
        if queue:
            self._waiting[tenant] = queue
        self._take(tenant)
        if not turn.done():
            turn.set_result(None)

    def _refusal(self, tenant: str) -> TooManyRuns:
        held = self._running[tenant]
        details = {"running": held, "limit": self._total, "limit_per_tenant": self._per_tenant}
        return TooManyRuns(
            f"{held} runs of this tenant are in progress, and no place came free; ask again in a moment",
            details=details,
            retry_after=1,
        )


def run_slots(settings: RunSettings, *, shared: bool) -> RunSlots:
    """Places as the settings say; where tenants share them, none may have them all."""
    total = settings.max_concurrent
    return RunSlots(
        total=total,
        per_tenant=settings.max_concurrent_per_tenant or (max(1, int(total * _SHARE)) if shared else total),
        queue_seconds=settings.queue_seconds,
        queue_length=settings.queue_length,
    )
