"""Rates of tenants: what replicas let through, together and while their counter is away."""

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.auth.rate_limits import LEASES_PER_WINDOW, REST_SECONDS, Counted, RateLimiter


@dataclass
class Shared:
    """A counter with a clock of its own, which may be away."""

    now: float = 0.0
    away: bool = False
    asked: int = 0
    windows: dict[str, tuple[int, float]] = field(default_factory=dict)

    async def count(self, name: str, amount: int, *, seconds: int) -> Counted:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise OSError("refused")
        count, ends = self.windows.get(name, (0, 0.0))
        if ends <= self.now:
            count, ends = 0, self.now + seconds
        self.windows[name] = (count + amount, ends)
        return Counted(count + amount, ends - self.now)


def replica(shared: Shared, rate: str = "100/minute", **per_tenant: str) -> RateLimiter:
    return RateLimiter(shared, rate, per_tenant, clock=lambda: shared.now)


async def let_through(rates: RateLimiter, times: int, tenant: str = "acme") -> int:
    return sum([bool((standing := await rates.take(tenant)) and standing.allowed) for _ in range(times)])


async def test_a_tenant_has_its_rate_and_no_more_until_the_window_is_over() -> None:
    shared = Shared()
    rates = replica(shared)
    assert await let_through(rates, 150) == 100
    assert await let_through(rates, 5, "other") == 5
    standing = await rates.take("acme")
    assert standing
    assert (standing.allowed, standing.limit, standing.window, standing.remaining) == (False, 100, 60, 0)
    assert standing.reset == 60
    shared.now += 60
    assert await let_through(rates, 150) == 100


async def test_the_counter_is_asked_a_few_times_a_window_and_not_by_those_who_are_refused() -> None:
    shared = Shared()
    assert await let_through(replica(shared), 10_000) == 100
    assert shared.asked == LEASES_PER_WINDOW


async def test_looking_at_a_rate_uses_none_of_it() -> None:
    rates = replica(Shared())
    for used in range(3):
        standing = rates.standing("acme")
        assert standing
        assert (standing.limit, standing.remaining, standing.allowed) == (100, 100 - used, True)
        await rates.take("acme")


async def test_many_at_once_are_counted_once_each() -> None:
    rates = replica(Shared())
    told = await asyncio.gather(*(rates.take("acme") for _ in range(300)))
    assert len([one for one in told if one and one.allowed]) == 100


async def test_a_tenant_may_have_another_rate_or_none() -> None:
    rates = replica(Shared(), "none", slow="3/second", free="none")
    assert await rates.take("anyone") is None
    assert await rates.take("free") is None
    assert await let_through(rates, 10, "slow") == 3


async def test_a_counter_that_is_away_stops_nobody_and_is_left_alone_for_a_while() -> None:
    shared = Shared(away=True)
    rates = replica(shared)
    assert await let_through(rates, 150) == 100
    assert shared.asked == 1
    shared.now += 60
    shared.away = False
    assert await let_through(rates, 1) == 1
    assert shared.asked == 2


async def test_a_counter_that_hangs_is_waited_for_briefly() -> None:
    class Hanging(Shared):
        async def count(self, name: str, amount: int, *, seconds: int) -> Counted:
            self.asked += 1
            await asyncio.Event().wait()
            raise AssertionError

    shared = Hanging()
    rates = RateLimiter(shared, "100/minute", timeout=0.01, clock=lambda: shared.now)
    async with asyncio.timeout(2):
        assert await let_through(rates, 5) == 5
    shared.now += REST_SECONDS / 2
    assert shared.asked == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 4), st.randoms(use_true_random=False))
async def test_replicas_together_never_let_more_through_and_waste_little(
    rate: int, count: int, random: Random
) -> None:
    shared = Shared()
    replicas = [replica(shared, f"{rate}/minute") for _ in range(count)]
    passed = 0
    for _ in range(3 * rate):
        passed += await let_through(random.choice(replicas), 1)
    # Whoever was not chosen any more may hold a lease.
    assert rate - (count - 1) * max(1, rate // LEASES_PER_WINDOW) <= passed <= rate


def test_a_rate_that_is_none_is_said_at_start() -> None:
    with pytest.raises(ValueError, match="couldn't parse"):
        RateLimiter(Shared(), "often")
