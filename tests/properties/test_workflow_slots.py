"""Slots of working steps: never more than the limit, none ever lost, and nobody starves."""

import asyncio
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.workflow.scheduler import Policy, Slots

Act = tuple[Literal["come", "leave", "end"], int]
POLICIES: tuple[Policy, ...] = ("fifo", "priority", "fair_share")


ACTS = st.tuples(st.sampled_from(["come", "come", "leave", "end"]), st.integers(0, 9))


class Office:
    """Steps that come, wait, work until they are told to end, and may be cancelled at any of it."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.working: list[asyncio.Event] = []

    def come(self, workflow: str, priority: int = 0, most: int | None = None) -> None:
        self.tasks.append(asyncio.create_task(self._step(workflow, priority, most)))

    async def _step(self, workflow: str, priority: int, most: int | None) -> None:
        async with self.slots.slot(workflow, priority=priority, most=most):
            self.served.append(workflow)
            end = asyncio.Event()
            self.working.append(end)
            await end.wait()

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    async def end(self, index: int = 0) -> None:
        if self.working:
            self.working.pop(index % len(self.working)).set()
        await self.settle()

    async def end_all(self) -> None:
        while any(not task.done() for task in self.tasks):
            await self.end()


@given(
    acts=st.lists(
        st.tuples(st.sampled_from(["come", "come", "leave", "end"]), st.integers(0, 9)), max_size=40
    ),
    limit=st.integers(1, 3),
    policy=st.sampled_from(POLICIES),
    at_once=st.booleans(),
)
@settings(max_examples=80, deadline=None)
async def test_no_slot_is_lost_whoever_is_cancelled(
    acts: Sequence[Act], limit: int, policy: Policy, at_once: bool
) -> None:
    office = Office(Slots(limit, policy))
    for act, number in acts:
        if act == "come":
            office.come(f"w{number % 3}", priority=number, most=1 if number == 9 else None)
        elif act == "leave" and office.tasks:
            office.tasks[number % len(office.tasks)].cancel()
        elif office.working:
            # A turn may be given to who is cancelled in the same moment.
            office.working.pop(number % len(office.working)).set()
        if not at_once:
            await office.settle()
        assert office.slots.active <= limit
    await office.settle()
    left = [task for task in office.tasks if not task.done()]

    await office.end_all()

    assert all(task.cancelled() or task.exception() is None for task in left)
    assert (office.slots.active, office.slots.queued) == (0, 0)
    assert not vars(office.slots)["_taken"], "nothing is kept of workflows that are over"


async def test_a_small_workflow_is_served_beside_a_batch_of_thousands() -> None:
    office = Office(Slots(4, "fair_share"))
    for _ in range(1_000):
        office.come("batch")
    await office.settle()
    office.come("small")
    office.come("small")
    await office.settle()

    await office.end()
    await office.end()

    assert office.served[4:] == ["small", "small"], "the next free slots are the small one's"
    for task in office.tasks:
        task.cancel()
    await asyncio.gather(*office.tasks, return_exceptions=True)
    assert (office.slots.active, office.slots.queued) == (0, 0)


@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4), limit=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
async def test_a_fair_share_waits_for_no_more_than_one_step_of_each_other(
    sizes: Sequence[int], limit: int
) -> None:
    office = Office(Slots(limit, "fair_share"))
    for number, size in enumerate(sizes):
        for _ in range(size):
            office.come(f"w{number}")
    await office.settle()
    await office.end_all()

    # From where all are there, a workflow with steps left is served at least once in so many turns.
    later = office.served[limit:]
    for number in range(len(sizes)):
        places = [at for at, name in enumerate(later) if name == f"w{number}"]
        gaps = [after - before for before, after in zip([-1, *places], places, strict=False)]
        assert all(gap <= len(sizes) + limit for gap in gaps)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("fifo", ["low", "high", "low"]), ("priority", ["high", "low", "low"])],
)
async def test_who_is_next(policy: Policy, expected: list[str]) -> None:
    office = Office(Slots(1, policy))
    office.come("first")
    await office.settle()
    for name, priority in (("low", 0), ("high", 5), ("low", 0)):
        office.come(name, priority)
    await office.settle()

    await office.end_all()

    assert office.served == ["first", *expected]


async def test_a_workflow_keeps_to_its_own_limit_and_lets_others_pass() -> None:
    office = Office(Slots(3, "fifo"))
    for name, most in (("narrow", 1), ("narrow", 1), ("wide", None)):
        office.come(name, most=most)
    await office.settle()

    assert office.served == ["narrow", "wide"]
    await office.end_all()
