"""Rate limits: what replicas let through together, and while their shared storage is unavailable."""

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.auth.rate_limits import LEASES_PER_WINDOW, STORAGE_PAUSE_SECONDS, RateLimiter
from tests.support.profiles import examples


@dataclass
class SharedStorage:
    """A storage with a clock of its own, which may be unavailable."""

    now: float = 0.0
    unavailable: bool = False
    calls: int = 0
    windows: dict[str, tuple[int, float]] = field(default_factory=dict)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        self.calls += 1
        await asyncio.sleep(0)
        if self.unavailable:
            raise OSError("refused")
        count, ends_at = self.windows.get(key, (0, 0.0))
        if ends_at <= self.now:
            count, ends_at = 0, self.now + expiry
        self.windows[key] = (count + amount, ends_at)
        return count + amount

    async def get_expiry(self, key: str) -> float:
        return self.windows[key][1]


def replica(storage: SharedStorage, rate: str = "100/minute", **per_tenant: str) -> RateLimiter:
    return RateLimiter(storage, rate, per_tenant, clock=lambda: storage.now)


async def count_allowed(limiter: RateLimiter, times: int, tenant: str = "acme") -> int:
    statuses = [await limiter.count_request(tenant) for _ in range(times)]
    return sum(bool(status and status.allowed) for status in statuses)


async def test_a_tenant_has_its_rate_and_no_more_until_the_window_is_over() -> None:
    storage = SharedStorage()
    limiter = replica(storage)
    assert await count_allowed(limiter, 150) == 100
    assert await count_allowed(limiter, 5, "other") == 5
    status = await limiter.count_request("acme")
    assert status
    assert (status.allowed, status.limit, status.window, status.remaining) == (False, 100, 60, 0)
    assert status.reset == 60
    storage.now += 60
    assert await count_allowed(limiter, 150) == 100


async def test_the_storage_is_called_a_few_times_a_window_and_not_for_rejected_requests() -> None:
    storage = SharedStorage()
    assert await count_allowed(replica(storage), 10_000) == 100
    assert storage.calls == LEASES_PER_WINDOW


async def test_reading_a_status_counts_no_request() -> None:
    limiter = replica(SharedStorage())
    for used in range(3):
        status = limiter.get_status("acme")
        assert status
        assert (status.limit, status.remaining, status.allowed) == (100, 100 - used, True)
        await limiter.count_request("acme")


async def test_concurrent_requests_are_counted_once_each() -> None:
    limiter = replica(SharedStorage())
    statuses = await asyncio.gather(*(limiter.count_request("acme") for _ in range(300)))
    assert len([status for status in statuses if status and status.allowed]) == 100


async def test_a_request_that_stands_for_several_is_counted_whole_or_not_at_all() -> None:
    limiter = replica(SharedStorage())
    statuses = [await limiter.count_request("acme", weight=weight) for weight in (60, 50, 30, 11, 10, 1)]
    assert [status.allowed for status in statuses if status] == [True, False, True, False, True, False]


async def test_a_tenant_may_have_another_rate_or_none() -> None:
    limiter = replica(SharedStorage(), "none", slow="3/second", free="none")
    assert await limiter.count_request("anyone") is None
    assert await limiter.count_request("free") is None
    assert await count_allowed(limiter, 10, "slow") == 3


async def test_an_unavailable_storage_stops_nobody_and_is_left_alone_for_a_while() -> None:
    storage = SharedStorage(unavailable=True)
    limiter = replica(storage)
    assert await count_allowed(limiter, 150) == 100
    assert storage.calls == 1
    storage.now += 60
    storage.unavailable = False
    assert await count_allowed(limiter, 1) == 1
    assert storage.calls == 2


async def test_a_storage_that_hangs_is_waited_for_briefly() -> None:
    class HangingStorage(SharedStorage):
        async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
            self.calls += 1
            await asyncio.Event().wait()
            raise AssertionError

    storage = HangingStorage()
    limiter = RateLimiter(storage, "100/minute", timeout=0.01, clock=lambda: storage.now)
    assert await count_allowed(limiter, 5) == 5
    storage.now += STORAGE_PAUSE_SECONDS / 2
    assert storage.calls == 1


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(1, 300), st.integers(1, 4), st.randoms(use_true_random=False))
async def test_replicas_together_never_exceed_the_rate_and_waste_little(
    rate: int, count: int, random: Random
) -> None:
    storage = SharedStorage()
    replicas = [replica(storage, f"{rate}/minute") for _ in range(count)]
    allowed = 0
    for weight in random.choices((1, 2, 7), k=rate // 4):
        status = await random.choice(replicas).count_request("acme", weight=weight)
        allowed += weight if status and status.allowed else 0
    for _ in range(3 * rate):
        allowed += await count_allowed(random.choice(replicas), 1)
    # A replica that is not chosen any more may hold a lease.
    assert rate - (count - 1) * max(1, rate // LEASES_PER_WINDOW) <= allowed <= rate


def test_a_rate_that_cannot_be_parsed_fails_at_start() -> None:
    with pytest.raises(ValueError, match="couldn't parse"):
        RateLimiter(SharedStorage(), "often")
