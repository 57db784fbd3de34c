"""Calls that come at the same time share one."""

import asyncio
from collections.abc import Sequence

import pytest

from core.batching import Batcher


class Multiplier:
    """Doubles numbers in groups; refuses groups with a negative one, and all while it is unavailable."""

    def __init__(self) -> None:
        self.groups: list[Sequence[int]] = []
        self.is_available = True
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.batcher: Batcher[int, int] = Batcher(
            self.double, is_shared=lambda error: isinstance(error, OSError)
        )

    async def double(self, numbers: Sequence[int]) -> Sequence[int]:
        self.groups.append(numbers)
        await self.may_go_on.wait()
        if not self.is_available:
            raise OSError
        if min(numbers) < 0:
            raise ValueError(numbers)
        return [2 * number for number in numbers]


async def test_calls_that_come_together_share_one_and_get_their_own_results() -> None:
    multiplier = Multiplier()
    assert await asyncio.gather(*map(multiplier.batcher.call, range(20))) == list(range(0, 40, 2))
    assert await multiplier.batcher.call(7) == 14
    assert multiplier.groups == [list(range(20)), [7]]


async def test_a_call_that_is_refused_fails_alone() -> None:
    multiplier = Multiplier()
    one, refused, two = await asyncio.gather(
        *map(multiplier.batcher.call, (1, -1, 2)), return_exceptions=True
    )
    assert (one, two) == (2, 4)
    assert isinstance(refused, ValueError)


async def test_an_outage_is_everyones_and_nobody_tries_alone() -> None:
    multiplier = Multiplier()
    multiplier.is_available = False
    results = await asyncio.gather(*map(multiplier.batcher.call, range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    assert len(multiplier.groups) == 1
    multiplier.is_available = True
    assert await multiplier.batcher.call(1) == 2


async def test_what_nobody_waits_for_any_more_is_not_done() -> None:
    multiplier = Multiplier()
    multiplier.may_go_on.clear()
    first = asyncio.create_task(multiplier.batcher.call(1))
    while not multiplier.groups:  # noqa: ASYNC110 - the batcher's task begins with one
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await multiplier.batcher.call(2)
    multiplier.may_go_on.set()
    assert await first == 2
    assert await multiplier.batcher.call(3) == 6
    assert multiplier.groups == [[1], [3]]
