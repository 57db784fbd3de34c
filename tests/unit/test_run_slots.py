"""Places for runs: what tenants who share a service notice of each other."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import TooManyRuns
from core.settings import RunSettings
from service.runs.concurrency_slots import RunSlots, run_slots


def slots(total: int = 2, **bounds: float) -> RunSlots:
    given = {"per_tenant": total, "queue_seconds": 5, "queue_length": 100, **bounds}
    return RunSlots(total=total, **given)  # type: ignore[arg-type]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_burst_of_one_tenant_holds_another_up_by_one_place_only() -> None:
    places, order = slots(total=1), []

    async def run(tenant: str) -> None:
        async with places.place(tenant):
            order.append(tenant)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for tenant in ["loud"] * 20 + ["quiet"] * 3:
            group.create_task(run(tenant))
    assert order[:7] == ["loud", "loud", "quiet", "loud", "quiet", "loud", "quiet"]
    assert (places.running, places.waiting) == (0, 0)


async def test_a_tenant_cannot_have_all_places() -> None:
    places = slots(total=3, per_tenant=2, queue_seconds=0.01)
    async with places.place("loud"), places.place("loud"):
        with pytest.raises(TooManyRuns) as refused:
            async with places.place("loud"):
                raise AssertionError("a third")
        async with places.place("quiet"):
            assert places.running == 3
    assert refused.value.retry_after
    assert refused.value.details == {"running": 2, "limit": 3, "limit_per_tenant": 2}


async def test_who_would_wait_behind_too_many_is_refused_at_once() -> None:
    places = slots(total=1, queue_length=1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(places.place("loud"))
        waiting = asyncio.create_task(stack.enter_async_context(places.place("loud")))
        await settled()
        with pytest.raises(TooManyRuns):
            async with places.place("loud"):
                raise AssertionError("it waited")
        assert places.waiting == 1
        waiting.cancel()


async def test_a_run_ends_well_though_another_may_not_even_wait() -> None:
    places = slots(total=1, queue_length=0)
    async with places.place("loud"):
        with pytest.raises(TooManyRuns):
            async with places.place("loud"):
                raise AssertionError("it waited")
    assert (places.running, places.waiting) == (0, 0)


def test_tenants_share_the_places_where_there_are_several() -> None:
    for shared, bound in ((True, 80), (False, 100)):
        assert run_slots(RunSettings(), shared=shared)._per_tenant == bound
    assert run_slots(RunSettings(max_concurrent=1), shared=True)._per_tenant == 1
    assert run_slots(RunSettings(max_concurrent_per_tenant=7), shared=True)._per_tenant == 7


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["come", "leave", "cancel"])), max_size=40)


@settings(max_examples=60, deadline=None)
@given(STEPS)
async def test_places_are_neither_lost_nor_given_twice(steps: list[tuple[str, str]]) -> None:
    places = slots(total=3, per_tenant=2)
    running: dict[str, int] = dict.fromkeys("abc", 0)
    doors: list[tuple[str, asyncio.Event, asyncio.Task[None]]] = []

    async def run(tenant: str, door: asyncio.Event) -> None:
        async with places.place(tenant):
            running[tenant] += 1
            try:
                await door.wait()
            finally:
                running[tenant] -= 1

    for tenant, step in steps:
        if step == "come":
            door = asyncio.Event()
            doors.append((tenant, door, asyncio.create_task(run(tenant, door))))
        elif doors and step == "leave":
            doors[0][1].set()
            doors.pop(0)
        elif doors:
            # With a place, waiting, or between the two.
            doors.pop()[2].cancel()
        if len(steps) % 2:
            await settled()
        assert places.running <= 3
        assert max(running.values()) <= 2
    await settled()
    assert places.running == sum(running.values())
    # Nobody waits for a place that is free for them.
    assert places.running == 3 or all(running[tenant] == 2 for tenant in places._waiting)
    for _, door, _ in doors:
        door.set()
    for *_, task in doors:
        await asyncio.wait([task])
    await settled()
    assert (places.running, places.waiting) == (0, 0)
