"""Writes of tasks that are kept for the checkpoint of their step."""

import asyncio
from typing import Any

import pytest

from checkpoints.saver.rows import Rows
from checkpoints.saver.step_writes import TURNS, StepWrites


class Writer:
    """Commits nothing while it is told to fail."""

    def __init__(self) -> None:
        self.fails = True
        self.threads: list[str] = []

    async def write(self, thread_id: str, build: Any, *, large: bool) -> None:
        if self.fails:
            raise OSError("the disk is full")
        self.threads.append(thread_id)


async def test_what_was_written_after_a_write_that_failed_is_not_committed_with_another_runs_checkpoint() -> (
    None
):
    writer = Writer()
    kept: Any = StepWrites(writer)  # type: ignore[arg-type]  # all it uses of a writer
    kept.keep("thread", Rows({}, 0))
    for _ in range(TURNS + 2):
        await asyncio.sleep(0)
    kept.keep("thread", Rows({}, 1))
    await kept.settle("thread")
    writer.fails = False
    assert list(await kept.take("thread")) == []


async def test_a_checkpoint_fails_with_the_earlier_writes_of_its_step() -> None:
    kept: Any = StepWrites(Writer())  # type: ignore[arg-type]  # all it uses of a writer
    kept.keep("thread", Rows({}, 0))
    for _ in range(TURNS + 2):
        await asyncio.sleep(0)
    with pytest.raises(OSError, match="disk is full"):
        await kept.take("thread")
