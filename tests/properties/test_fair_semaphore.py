"""Concurrency slots: never more than the limit, none ever lost, and no owner starves."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.concurrency import FairSemaphore, SchedulingPolicy, SlotUnavailable
from core.errors import TooManyRuns
from core.settings import RunSettings, WorkflowSettings
from service.runs.limits import RunQueue, build_queues
from tests.support.profiles import examples

Action = tuple[Literal["arrive", "cancel", "finish"], int]
POLICIES: tuple[SchedulingPolicy, ...] = ("fifo", "priority", "fair_share")
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["arrive", "arrive", "cancel", "finish"]), st.integers(0, 9)), max_size=40
)


class Office:
    """Callers that arrive, wait, hold a slot until told to finish, and may be cancelled at any time."""

    def __init__(self, slots: FairSemaphore) -> None:
        self.slots = slots
        self.served: list[str] = []
        self.working: list[tuple[str, asyncio.Event]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def arrive(self, owner: str, priority: int = 0, owner_limit: int | None = None) -> None:
        self.tasks.append(asyncio.create_task(self._work(owner, priority, owner_limit)))

    async def _work(self, owner: str, priority: int, owner_limit: int | None) -> None:
        async with self.slots.slot(owner, priority=priority, owner_limit=owner_limit):
            self.served.append(owner)
            entry = (owner, asyncio.Event())
            self.working.append(entry)
            try:
                await entry[1].wait()
            finally:
                self.working.remove(entry)

    @property
    def slots_by_owner(self) -> Counter[str]:
        return Counter(owner for owner, _ in self.working)

    def signal(self, index: int = 0) -> None:
        self.working[index % len(self.working)][1].set()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def finish(self) -> None:
        if self.working:
            self.signal()
        await self.settle()

    async def finish_all(self) -> None:
        while any(not task.done() for task in self.tasks):
            await self.finish()


@given(
    actions=ACTIONS,
    limit=st.integers(1, 3),
    owner_limit=st.integers(1, 3),
    policy=st.sampled_from(POLICIES),
    at_once=st.booleans(),
)
@settings(max_examples=examples(120), deadline=None)
async def test_no_slot_is_lost_or_given_twice_whoever_is_cancelled(
    actions: Sequence[Action], limit: int, owner_limit: int, policy: SchedulingPolicy, at_once: bool
) -> None:
    office = Office(FairSemaphore(limit, policy, owner_limit=owner_limit))
    for action, number in actions:
        if action == "arrive":
            office.arrive(f"w{number % 3}", priority=number, owner_limit=1 if number == 9 else None)
        elif action == "cancel" and office.tasks:
            # With a slot, waiting, or between the two: a turn may come in the moment of the cancellation.
            office.tasks[number % len(office.tasks)].cancel()
        elif office.working:
            office.signal(number)
        if not at_once:
            await office.settle()
        assert office.slots.active <= limit
        assert max(office.slots_by_owner.values(), default=0) <= owner_limit
    await office.settle()
    unfinished = [task for task in office.tasks if not task.done()]
    assert office.slots.active == office.slots_by_owner.total()

    await office.finish_all()

    assert all(task.cancelled() or task.exception() is None for task in unfinished)
    assert (office.slots.active, office.slots.waiting) == (0, 0)
    remembered = [vars(office.slots)[name] for name in ("_held", "_queues", "_last_turns")]
    assert not any(remembered), "nothing is kept of owners that are gone"


@given(actions=ACTIONS)
@settings(max_examples=examples(60), deadline=None)
async def test_nobody_waits_for_a_slot_that_is_free_for_them(actions: Sequence[Action]) -> None:
    office = Office(FairSemaphore(3, owner_limit=2))
    for action, number in actions:
        if action == "arrive":
            office.arrive(f"w{number % 3}")
        elif action == "cancel" and office.tasks:
            office.tasks[number % len(office.tasks)].cancel()
        elif office.working:
            office.signal(number)
        await office.settle()
        waiting = vars(office.slots)["_queues"]
        assert office.slots.active == 3 or all(office.slots_by_owner[owner] == 2 for owner in waiting)
    await office.finish_all()


async def test_a_small_owner_is_served_beside_a_batch_of_thousands() -> None:
    office = Office(FairSemaphore(4, "fair_share"))
    for _ in range(1_000):
        office.arrive("batch")
    await office.settle()
    office.arrive("small")
    office.arrive("small")
    await office.settle()

    await office.finish()
    await office.finish()

    assert office.served[4:] == ["small", "small"], "the next free slots are the small one's"
    for task in office.tasks:
        task.cancel()
    await asyncio.gather(*office.tasks, return_exceptions=True)
    assert (office.slots.active, office.slots.waiting) == (0, 0)


async def test_a_burst_of_one_owner_delays_another_by_one_slot_only() -> None:
    office = Office(FairSemaphore(1))
    for owner in ["loud"] * 20 + ["quiet"] * 3:
        office.arrive(owner)
    await office.settle()
    await office.finish_all()
    assert office.served[:7] == ["loud", "quiet", "loud", "quiet", "loud", "quiet", "loud"]


@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4), limit=st.integers(1, 3))
@settings(max_examples=examples(30), deadline=None)
async def test_with_fair_share_an_owner_waits_for_at_most_one_turn_of_each_other(
    sizes: Sequence[int], limit: int
) -> None:
    office = Office(FairSemaphore(limit, "fair_share"))
    for number, size in enumerate(sizes):
        for _ in range(size):
            office.arrive(f"w{number}")
    await office.settle()
    await office.finish_all()

    # Once all owners wait, one with callers left is served at least once in so many turns.
    later = office.served[limit:]
    for number in range(len(sizes)):
        positions = [at for at, name in enumerate(later) if name == f"w{number}"]
        gaps = [after - before for before, after in zip([-1, *positions], positions, strict=False)]
        assert all(gap <= len(sizes) + limit for gap in gaps)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("fifo", ["low", "high", "low"]), ("priority", ["high", "low", "low"])],
)
async def test_the_policy_decides_who_is_next(policy: SchedulingPolicy, expected: list[str]) -> None:
    office = Office(FairSemaphore(1, policy))
    office.arrive("first")
    await office.settle()
    for name, priority in (("low", 0), ("high", 5), ("low", 0)):
        office.arrive(name, priority)
    await office.settle()

    await office.finish_all()

    assert office.served == ["first", *expected]


async def test_an_owner_at_its_own_limit_lets_others_pass() -> None:
    office = Office(FairSemaphore(3, "fifo"))
    for name, owner_limit in (("narrow", 1), ("narrow", 1), ("wide", None)):
        office.arrive(name, owner_limit=owner_limit)
    await office.settle()

    assert office.served == ["narrow", "wide"]
    await office.finish_all()


async def test_a_caller_behind_too_many_of_its_owner_is_refused_at_once() -> None:
    office = Office(FairSemaphore(1, queue_length=1))
    office.arrive("loud")
    office.arrive("loud")
    await office.settle()
    with pytest.raises(SlotUnavailable):
        await office.slots.acquire("loud")
    assert office.slots.waiting == 1
    await office.finish_all()
    assert (office.slots.active, office.slots.waiting) == (0, 0)


async def test_a_slot_is_given_back_though_no_other_caller_may_wait() -> None:
    slots = FairSemaphore(1, queue_length=0)
    async with slots.slot("loud"):
        with pytest.raises(SlotUnavailable):
            await slots.acquire("loud")
    assert (slots.active, slots.waiting) == (0, 0)


async def test_a_tenant_cannot_hold_all_slots_and_is_told_its_limits() -> None:
    slots = FairSemaphore(3, owner_limit=2, timeout=0.01)
    queue = RunQueue(slots=slots, places=None, queue_length=9, timeout_seconds=1)
    async with slots.slot("loud"), slots.slot("loud"):
        with pytest.raises(TooManyRuns) as refused:
            await queue.acquire("loud")
        async with slots.slot("quiet"):
            assert slots.active == 3
    assert refused.value.retry_after
    assert refused.value.details == {"running": 2, "limit": 3, "limit_per_tenant": 2}


@pytest.mark.parametrize(
    ("limits", "shared", "owner_limit"),
    [
        ({}, True, 80),
        ({}, False, 100),
        ({"max_concurrent": 1}, True, 1),
        ({"max_concurrent_per_tenant": 7}, True, 7),
    ],
)
def test_tenants_share_the_slots_where_there_are_several(
    limits: dict[str, int], shared: bool, owner_limit: int
) -> None:
    lanes = build_queues(RunSettings.model_validate(limits), WorkflowSettings(), shared=shared)
    assert lanes["runs"].slots.owner_limit == owner_limit
