"""How often a tenant may ask: a fixed window, counted for all replicas, at the price of a dict look-up.

A replica does not ask the counter for each request but for a fiftieth of the window at once (a lease), and
gives that out by itself. So all replicas together never let more through than the rate, they ask the counter
fifty times a window at most, and what a replica holds and does not use (a fiftieth) is lost to the others.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from limits import RateLimitItem, parse

from core.logging import get_logger
from core.settings import NO_RATE
from service.auth.rate_limits import COUNTER_FAULTS, Counted, Counter, process_counter

log = get_logger(__name__)

LEASES_PER_WINDOW = 50
# For so long a counter that failed is not asked.
REST_SECONDS = 5.0
_MOST_TENANTS = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What a request is told.

    Attributes:
        allowed: Whether it may go on.
        limit: Requests a window.
        window: Its length, in seconds.
        remaining: Requests left in it, as far as this replica knows.
        reset: Seconds until the next one.
    """

    allowed: bool
    limit: int
    window: int
    remaining: int
    reset: float


@dataclass(slots=True)
class _Window:
    leased: int = 0
    counted: int = 0
    ends: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class RateLimits:
    """Rates of tenants.

    While the counter is away this replica counts by itself, each of them up to the whole rate: a limiter that
    fails must not be what takes the service down.

    Args:
        counter: Counts for all replicas.
        rate: For each tenant, as ``6000/minute``; ``none``: no limit.
        per_tenant: Rates of single tenants in its place.
        timeout: Seconds the counter is waited for.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        counter: Counter,
        rate: str,
        per_tenant: Mapping[str, str] | None = None,
        *,
        timeout: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counter = counter
        self._rate = _parsed(rate)
        self._rates = {tenant: _parsed(one) for tenant, one in (per_tenant or {}).items()}
        self._timeout = timeout
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._own = process_counter()
        self._rests_until = float("-inf")

    async def take(self, tenant: str) -> Standing | None:
        """Count a request of a tenant's; None: they have no limit."""
        rate = self._rates.get(tenant, self._rate)
        if rate is None:
            return None
        window = self._windows.get(tenant) or self._opened(tenant)
        if not window.leased or window.ends <= self._clock():
            async with window.lock:
                await self._lease(tenant, window, rate)
        allowed = window.leased > 0
        window.leased -= allowed
        return self._standing(rate, window, allowed=allowed)

    def standing(self, tenant: str) -> Standing | None:
        """How a tenant stands, without counting a request; None: they have no limit."""
        rate = self._rates.get(tenant, self._rate)
        if rate is None:
            return None
        window = self._windows.get(tenant)
        if window is None or window.ends <= self._clock():
            return self._standing(rate, _Window(), allowed=True)
        return self._standing(rate, window, allowed=window.leased > 0 or window.counted < rate.amount)

    def _standing(self, rate: RateLimitItem, window: _Window, *, allowed: bool) -> Standing:
        return Standing(
            allowed=allowed,
            limit=rate.amount,
            window=rate.get_expiry(),
            remaining=window.leased + max(0, rate.amount - window.counted),
            reset=max(0.0, window.ends - self._clock()),
        )

    async def _lease(self, tenant: str, window: _Window, rate: RateLimitItem) -> None:
        """Fill an empty window, unless it is known to be used up, or another request has filled it by now."""
        now = self._clock()
        if window.ends <= now:
            window.leased = window.counted = 0
        if window.leased or window.counted >= rate.amount:
            return
        wanted = max(1, rate.amount // LEASES_PER_WINDOW)
        counted = await self._count(rate.key_for(tenant), wanted, seconds=rate.get_expiry())
        before = counted.count - wanted
        window.leased = max(0, min(wanted, rate.amount - before))
        window.counted = counted.count
        window.ends = now + counted.seconds

    async def _count(self, name: str, amount: int, *, seconds: int) -> Counted:
        if self._clock() >= self._rests_until:
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._counter.count(name, amount, seconds=seconds)
            except COUNTER_FAULTS as error:
                self._rests_until = self._clock() + REST_SECONDS
                reason = str(error) or type(error).__name__
                log.warning("requests_counted_in_this_process_alone", seconds=REST_SECONDS, reason=reason)
        return await self._own.count(name, amount, seconds=seconds)

    def _opened(self, tenant: str) -> _Window:
        if len(self._windows) >= _MOST_TENANTS:
            now = self._clock()
            self._windows = {name: window for name, window in self._windows.items() if window.ends > now}
        return self._windows.setdefault(tenant, _Window())


def _parsed(rate: str) -> RateLimitItem | None:
    return None if rate == NO_RATE else parse(rate)
