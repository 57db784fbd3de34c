"""Background tasks."""

import asyncio

import pytest

from core.tasks import background


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    lost = 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost > 1:
                    raise

    async with asyncio.timeout(10), background(work(), "stubborn") as task:
        await asyncio.sleep(0)
    assert (task.cancelled(), lost) == (True, 2)


async def test_a_task_that_failed_by_itself_is_in_the_log_and_stops_nobody_from_closing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise ValueError("on its own")

    async with background(work(), "failing") as task:
        await asyncio.wait([task])
    assert isinstance(task.exception(), ValueError)
    assert "background_task_died" in caplog.text
    assert "failing" in caplog.text
    assert "on its own" in caplog.text
