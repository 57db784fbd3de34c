"""Limit how often a tenant may call: a fixed window, shared by all replicas.

Windows are counted by the storages of the ``limits`` library (memory or Redis) or in Postgres, for which the
library has none. A replica does not ask the shared storage for each request, which costs 0.7 ms on Postgres,
but takes a fiftieth of the window at once (a lease) and hands that out from memory, which costs 5 µs. All
replicas together never exceed the rate, and a replica holds at most one unused lease.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import StorageError

from core.errors import RateLimited
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Pool
from core.settings import NO_RATE, LimitSettings, RedisSettings

log = get_logger(__name__)

LEASES_PER_WINDOW = 50
# A shared storage that failed is not used again for so long.
STORAGE_PAUSE_SECONDS = 5.0
_MAX_TENANTS = 10_000
STORAGE_FAULTS = (StorageError, *DATABASE_UNAVAILABLE, OSError, TimeoutError)

# A window that is over starts again with this count.
COUNT_SQL = """
INSERT INTO auth.request_counts AS current (name, count, ends_at)
VALUES (%(name)s, %(amount)s, now() + %(seconds)s * interval '1 second')
ON CONFLICT (name) DO UPDATE SET
    count = CASE WHEN current.ends_at > now() THEN current.count ELSE 0 END + excluded.count,
    ends_at = CASE WHEN current.ends_at > now() THEN current.ends_at ELSE excluded.ends_at END
RETURNING count
"""
SECONDS_LEFT_SQL = """
SELECT extract(epoch FROM ends_at - now())::float8 AS seconds FROM auth.request_counts WHERE name = %s
"""


class WindowStorage(Protocol):
    """Counts in windows that start with the first count after the last one was over.

    The part of :class:`limits.aio.storage.Storage` that the limiter uses.
    """

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count ``amount`` more in a window of ``expiry`` seconds, and return the count."""
        ...

    async def get_expiry(self, key: str) -> float:
        """Return when the window is over, in seconds since the epoch."""
        ...


class PostgresStorage:
    """A :class:`WindowStorage` in the service's Postgres.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in one statement; see :class:`WindowStorage`."""
        parameters = {"name": key, "amount": amount, "seconds": expiry}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(COUNT_SQL, parameters)).fetchone()
        return int(row["count"]) if row else amount

    async def get_expiry(self, key: str) -> float:
        """Return the end of the window by this process's clock; see :class:`WindowStorage`."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SECONDS_LEFT_SQL, (key,))).fetchone()
        return time.time() + (row["seconds"] if row else 0.0)


@asynccontextmanager
async def open_storage(
    settings: LimitSettings, redis: RedisSettings, pool: Pool
) -> AsyncIterator[WindowStorage]:
    """Open the storage the settings name: this process's memory, Redis where there is one, else Postgres.

    Args:
        settings: Whether replicas share their counts.
        redis: The address of Redis.
        pool: The service's pool, for the table in Postgres.
    """
    if settings.limit_in_process:
        yield MemoryStorage()
    elif redis.url:
        # The client takes a fifth of a second to import, which a service without Redis need not wait for.
        from redis.asyncio import ConnectionPool  # noqa: PLC0415

        url, timeout = redis.url.get_secret_value(), settings.limit_timeout_seconds
        connections = ConnectionPool.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        try:
            yield RedisStorage(
                f"{'async+redis+' if url.startswith('unix') else 'async+'}{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="ventros-agents",
                connection_pool=connections,  # type: ignore[arg-type]  # as its documentation says
            )
        finally:
            await connections.aclose()
    else:
        yield PostgresStorage(pool)


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """Where a tenant stands in its window.

    Attributes:
        allowed: Whether the request may proceed.
        limit: Requests per window.
        window: Length of the window in seconds.
        remaining: Requests left in the window, as far as this replica knows.
        reset: Seconds until the next window.
    """

    allowed: bool
    limit: int
    window: int
    remaining: int
    reset: float


@dataclass(slots=True)
class _Window:
    """A tenant's window on this replica: what is left of its lease, and the count of all replicas."""

    leased: int = 0
    counted: int = 0
    ends_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class RateLimiter:
    """Limits the requests of each tenant.

    While the shared storage is unavailable this replica counts by itself, so each replica lets the whole rate
    through: the limiter must not be what takes the service down.

    Args:
        storage: Counts for all replicas.
        rate: The rate of each tenant, e.g. ``6000/minute``; ``none``: no limit.
        per_tenant: Rates of single tenants that replace ``rate``.
        timeout: Seconds to wait for the storage.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        storage: WindowStorage,
        rate: str,
        per_tenant: Mapping[str, str] | None = None,
        *,
        timeout: float = 0.5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._rate = _parse_rate(rate)
        self._rates = {tenant: _parse_rate(text) for tenant, text in (per_tenant or {}).items()}
        self._timeout = timeout
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._own_storage = MemoryStorage()
        self._paused_until = float("-inf")

    async def count_request(self, tenant: str, *, weight: int = 1) -> RateLimitStatus | None:
        """Count a request of a tenant and return its status; None: the tenant has no limit.

        Args:
            tenant: The tenant.
            weight: How many requests it stands for. If not all of them are left, none is used up.
        """
        rate = self._rates.get(tenant, self._rate)
        if rate is None:
            return None
        window = self._windows.get(tenant) or self._add_window(tenant)
        if window.leased < weight or window.ends_at <= self._clock():
            async with window.lock:
                await self._lease(tenant, window, rate, weight)
        is_allowed = window.leased >= weight
        window.leased -= weight if is_allowed else 0
        return self._build_status(rate, window, allowed=is_allowed)

    def get_status(self, tenant: str) -> RateLimitStatus | None:
        """Return a tenant's status without counting a request; None: the tenant has no limit."""
        rate = self._rates.get(tenant, self._rate)
        if rate is None:
            return None
        window = self._windows.get(tenant)
        if window is None or window.ends_at <= self._clock():
            return self._build_status(rate, _Window(), allowed=True)
        return self._build_status(rate, window, allowed=window.leased > 0 or window.counted < rate.amount)

    def _build_status(self, rate: RateLimitItem, window: _Window, *, allowed: bool) -> RateLimitStatus:
        return RateLimitStatus(
            allowed=allowed,
            limit=rate.amount,
            window=rate.get_expiry(),
            remaining=window.leased + max(0, rate.amount - window.counted),
            reset=max(0.0, window.ends_at - self._clock()),
        )

    async def _lease(self, tenant: str, window: _Window, rate: RateLimitItem, weight: int) -> None:
        """Refill a window, unless its rate is used up or another request has refilled it meanwhile."""
        if window.ends_at <= self._clock():
            window.leased = window.counted = 0
        if window.leased >= weight or window.counted >= rate.amount:
            return
        amount = max(weight - window.leased, rate.amount // LEASES_PER_WINDOW, 1)
        window.counted, window.ends_at = await self._count(rate.key_for(tenant), rate.get_expiry(), amount)
        window.leased += max(0, min(amount, rate.amount - (window.counted - amount)))

    async def _count(self, key: str, expiry: int, amount: int) -> tuple[int, float]:
        if self._clock() >= self._paused_until:
            try:
                async with asyncio.timeout(self._timeout):
                    count = await self._storage.incr(key, expiry, amount)
                    return count, await self._storage.get_expiry(key)
            except STORAGE_FAULTS as error:
                self._paused_until = self._clock() + STORAGE_PAUSE_SECONDS
                reason = str(error) or type(error).__name__
                log.warning("rate_limits_not_shared", seconds=STORAGE_PAUSE_SECONDS, reason=reason)
        count = await self._own_storage.incr(key, expiry, amount)
        return count, self._clock() + (await self._own_storage.get_expiry(key) - time.time())

    def _add_window(self, tenant: str) -> _Window:
        if len(self._windows) >= _MAX_TENANTS:
            now = self._clock()
            self._windows = {name: window for name, window in self._windows.items() if window.ends_at > now}
        return self._windows.setdefault(tenant, _Window())


def build_refusal(status: RateLimitStatus) -> RateLimited:
    """Return the error for a request, or for the inputs of a batch, that the rate does not allow."""
    seconds = math.ceil(status.reset)
    used = (
        f"has {status.remaining} of its {status.limit} requests of {status.window} s left; each input is one"
        if status.remaining
        else f"has used its {status.limit} requests of {status.window} s"
    )
    return RateLimited(
        f"this tenant {used}; try again in {seconds} s",
        details={"limit": status.limit, "window_seconds": status.window},
        retry_after=max(1, seconds),
    )


def _parse_rate(rate: str) -> RateLimitItem | None:
    return None if rate == NO_RATE else parse(rate)
