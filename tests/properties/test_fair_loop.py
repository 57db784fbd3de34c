"""The event loop that tenants share: whose callback is next, and that none is lost, repeated or overtaken."""

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.context import Context, set_context
from core.fair_loop import ALONE_AFTER_SECONDS, SLICE_SECONDS, FairLoop
from tests.support.profiles import examples

Called = list[tuple[str, int]]


class Clock:
    """A clock that the callbacks advance by what they cost."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Office:
    """Calls back for tenants in a loop, and notes in which order."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = FairLoop(clock=self.clock)
        self.called: Called = []
        self.contexts = {name: _context_of(name) for name in "abc"}
        self.contexts[""] = contextvars.Context()

    def add(
        self, tenant: str, number: int = 0, cost: float = 0.0, then: Callable[[], Any] | None = None
    ) -> Any:
        """Have the loop call back for a tenant; the empty name is nobody's."""

        def work() -> None:
            self.called.append((tenant, number))
            self.clock.now += cost
            if then:
                then()

        return self.loop.call_soon(work, context=self.contexts[tenant])

    def run(self) -> None:
        """Call back until nothing is left to do."""
        while True:
            before = len(self.called)
            self.run_once()
            if len(self.called) == before:
                return

    def run_once(self) -> None:
        """Have one round of the loop."""
        self.loop.call_later(0, self.loop.stop)
        self.loop.run_forever()


def _context_of(name: str) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(set_context, Context(tenant=name))
    return context


@contextmanager
def open_office() -> Iterator[Office]:
    office = Office()
    try:
        yield office
    finally:
        office.loop.close()


def test_a_tenant_waits_for_one_callback_of_anothers_flood() -> None:
    with open_office() as office:
        for number in range(1_000):
            office.add("a", number, cost=0.002)
        # A request of b is a chain of callbacks.
        then = partial(office.add, "b", 1, 0.002, partial(office.add, "b", 2))
        office.add("b", 0, 0.002, then)
        office.run()
    positions = [position for position, (tenant, _) in enumerate(office.called) if tenant == "b"]
    assert positions[-1] <= 6, "one of a's between two of b's"
    assert len(office.called) == 1_003


def test_what_belongs_to_no_tenant_waits_for_a_time_slice_and_not_for_a_flood() -> None:
    with open_office() as office:
        for number in range(1_000):
            office.add("a", number, cost=SLICE_SECONDS / 4)
        office.run_once()
        office.add("")
        office.run()
    assert office.called.index(("", 0)) <= 12


COSTS = st.sampled_from([0.0, 0.1 * SLICE_SECONDS, SLICE_SECONDS, 20 * SLICE_SECONDS])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["a", "a", "b", "c", ""]), COSTS, st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 60)),
        st.tuples(st.just("run")),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0])),
    ),
    max_size=60,
)


@given(actions=ACTIONS)
@settings(max_examples=examples(150))
def test_every_callback_is_called_once_in_its_tenants_order_unless_it_is_cancelled(
    actions: Sequence[tuple[Any, ...]],
) -> None:
    with open_office() as office:
        handles: dict[tuple[str, int], Any] = {}
        cancelled: set[tuple[str, int]] = set()

        def add(tenant: str, cost: float, children: int) -> None:
            def add_children() -> None:
                for _ in range(children):
                    add(tenant, cost, 0)

            name = (tenant, len(handles))
            handles[name] = office.add(*name, cost=cost, then=add_children)

        def cancel(number: int) -> None:
            for name in [each for each in handles if each[1] == number]:
                handles[name].cancel()
                cancelled.update({name} - set(office.called))

        def wait(share: float) -> None:
            # Until a tenant has the loop to itself.
            office.clock.now += share * ALONE_AFTER_SECONDS

        perform: dict[str, Callable[..., None]] = {
            "add": add,
            "cancel": cancel,
            "run": office.run_once,
            "wait": wait,
        }
        for action, *values in actions:
            perform[action](*values)
        office.run()

    assert set(office.called) == set(handles) - cancelled
    assert not [name for name, times in Counter(office.called).items() if times > 1]
    for tenant in "abc":
        numbers = [number for name, number in office.called if name == tenant]
        assert numbers == sorted(numbers)


@given(costs=st.lists(st.tuples(COSTS, COSTS), min_size=5, max_size=60))
@settings(max_examples=examples(60))
def test_tenants_with_work_differ_in_time_by_no_more_than_a_callback_of_each(
    costs: Sequence[tuple[float, float]],
) -> None:
    with open_office() as office:
        for number, (of_a, of_b) in enumerate(costs):
            office.add("a", number, of_a)
            office.add("b", number, of_b)
        office.run()
    used = {"a": 0.0, "b": 0.0}
    longest = {"a": max(a for a, _ in costs), "b": max(b for _, b in costs)}
    left = {"a": len(costs), "b": len(costs)}
    for tenant, number in office.called:
        used[tenant] += costs[number]["ab".index(tenant)]
        left[tenant] -= 1
        if all(left.values()):
            assert abs(used["a"] - used["b"]) <= longest["a"] + longest["b"] + 1e-9


def test_time_without_work_is_no_credit() -> None:
    with open_office() as office:
        for number in range(100):
            office.add("a", number, cost=0.01)
            if number == 50:
                office.run_once()
        # b comes late, with as much work: it gets turns, and not all of them.
        for number in range(100):
            office.add("b", number, cost=0.01)
        begins = len(office.called)
        office.run()
    first = Counter(tenant for tenant, _ in office.called[begins : begins + 20])
    assert abs(first["a"] - first["b"]) <= 2


def test_an_exception_is_reported_and_stops_nobody() -> None:
    with open_office() as office:
        reported: list[dict[str, Any]] = []
        office.loop.set_exception_handler(lambda _, found: reported.append(found))
        office.add("a", 0, then=lambda: 1 / 0)
        office.add("a", 1)
        office.add("b", 2)
        office.run()
    assert sorted(office.called) == [("a", 0), ("a", 1), ("b", 2)]
    assert [type(each["exception"]) for each in reported] == [ZeroDivisionError]


def test_an_interrupt_leaves_the_loop_which_goes_on_with_the_rest() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with open_office() as office:
        office.add("a", 0, then=interrupt)
        office.add("a", 1)
        office.add("b", 2)
        with pytest.raises(KeyboardInterrupt):
            office.run()
        office.run()
    assert sorted(office.called) == [("a", 0), ("a", 1), ("b", 2)]


def test_a_tenant_that_is_alone_gets_the_loops_own_handles() -> None:
    with open_office() as office:
        office.add("a", 0)
        office.run()
        office.clock.now += 2 * ALONE_AFTER_SECONDS
        office.add("a", 1)
        office.run()
        assert not isinstance(office.add("a", 2), asyncio.Handle)
        # Until another one comes, whose callbacks wait for a's no longer than those that are there already.
        assert isinstance(office.add("b", 3), asyncio.Handle)
        assert isinstance(office.add("a", 4), asyncio.Handle)
        office.run()
    assert [number for _, number in office.called] == [0, 1, 2, 3, 4]


def test_nothing_is_kept_of_tenants_that_are_gone() -> None:
    with open_office() as office:
        office.contexts |= {f"t{number}": _context_of(f"t{number}") for number in range(500)}
        for number in range(500):
            # The flood of a never ends, so that the others come and go meanwhile.
            for _ in range(3):
                office.add("a", number, cost=SLICE_SECONDS)
            office.add(f"t{number}", cost=SLICE_SECONDS)
            office.run_once()
        assert len(vars(office.loop)["_tenants"]) < 100
        office.run()
        assert not vars(office.loop)["_tenants"]


def test_tasks_of_a_tenant_take_its_turns_also_after_they_have_waited() -> None:
    order: list[str] = []

    async def work(tenant: str, steps: int) -> None:
        set_context(Context(tenant=tenant))
        for _ in range(steps):
            await asyncio.sleep(0)
            order.append(tenant)

    async def main() -> None:
        flood = [asyncio.create_task(work("a", 20)) for _ in range(50)]
        await asyncio.sleep(0)
        await work("b", 10)
        # In the order of arrival, 50 of a's come before each of b's.
        assert order.count("a") < 50 * order.count("b")
        await asyncio.gather(*flood)

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(main())
