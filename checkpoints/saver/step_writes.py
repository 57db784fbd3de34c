"""The writes of a step's tasks, kept for a moment so that they are committed together with its checkpoint."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from checkpoints.saver.rows import Rows, join_rows
from checkpoints.saver.writer import GroupWriter

# A checkpoint follows the writes of its step's last task within fewer turns of the event loop, because
# nothing is waited for in between. Older writes belong to a step whose other tasks are still at work.
TURNS: Final = 32


class StepWrites:
    """Keeps tasks' writes until the checkpoint of their step takes them, for some turns of the event loop.

    A step then costs one commit instead of two, one after the other. A process that dies in between executes
    the task again, as it does if it dies just before.

    Args:
        writer: Commits the writes that no checkpoint takes.
    """

    def __init__(self, writer: GroupWriter) -> None:
        self._writer = writer
        self._kept: dict[str, list[Rows]] = {}
        self._releases: dict[str, asyncio.Task[None]] = {}

    def keep(self, thread_id: str, rows: Rows) -> None:
        """Keep a task's writes for the checkpoint of its step."""
        self._kept.setdefault(thread_id, []).append(rows)
        if thread_id not in self._releases:
            # In the run's context, which says whose claim the writes need.
            self._releases[thread_id] = asyncio.create_task(self._release(thread_id))

    async def take(self, thread_id: str) -> Sequence[Rows]:
        """Return what is kept of a thread, to be committed with the checkpoint that follows.

        Raises:
            Exception: What the step's earlier writes failed with. The checkpoint must fail too: it is read
                together with the writes before it.
        """
        kept = self._kept.pop(thread_id, ())
        if release := self._releases.pop(thread_id, None):
            await asyncio.wait([release])
            release.result()
        return kept

    async def settle(self, thread_id: str) -> None:
        """Wait until nothing is kept of a thread, before it is read or changed."""
        if release := self._releases.get(thread_id):
            await asyncio.wait([release])
            # No checkpoint followed the writes that failed, so that their task is executed again. So is one
            # whose writes came after them: only a checkpoint of another run would commit these.
            if self._releases.get(thread_id) is release:
                del self._releases[thread_id]
                self._kept.pop(thread_id, None)
                release.exception()

    async def settle_all(self) -> None:
        """Wait until nothing is kept of any thread."""
        for thread_id in list(self._releases):
            await self.settle(thread_id)

    async def _release(self, thread_id: str) -> None:
        turns = 0
        while thread_id in self._kept:
            await asyncio.sleep(0)
            turns += 1
            if turns >= TURNS and (kept := self._kept.pop(thread_id, None)):
                await self._writer.write(thread_id, partial(join_rows, kept), large=False)
                turns = 0
        if self._releases.get(thread_id) is asyncio.current_task():
            del self._releases[thread_id]
