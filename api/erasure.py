"""Erase a thread everywhere something of it is kept.

Here rooms say what they keep: a room whose tables hold something of a thread adds its eraser to
``ERASERS``, and one that remembers something in the process's memory has it forgotten in ``open_service``.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from checkpoints.erasure import erase_checkpoints
from checkpoints.pool import Pool

Eraser: TypeAlias = Callable[[AsyncConnection[DictRow], str], Awaitable[None]]

# Run one after the other in one transaction: a thread is erased everywhere, or nowhere.
ERASERS: tuple[Eraser, ...] = (erase_checkpoints,)


async def _nothing_queued() -> None:
    """Where nobody writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """Takes threads out for good.

    Attributes:
        pool: Connections.
        settled: Waits until what runs have queued is written, so that nothing comes after the erasure.
        forget: What drops a thread from the process's memory; called before and after its rows go, as a
            reader may have remembered it in between.
    """

    pool: Pool
    settled: Callable[[], Awaitable[None]] = _nothing_queued
    forget: Sequence[Callable[[str], None]] = ()

    async def erase(self, thread_id: str) -> None:
        """Erase a thread; nothing is said of one that does not exist."""
        await self.settled()
        async with self.pool.connection() as connection, connection.transaction():
            await self.erase_in(connection, thread_id)
        self._forgotten(thread_id)

    async def erase_in(self, connection: AsyncConnection[DictRow], thread_id: str) -> None:
        """The same, as a part of the caller's transaction."""
        self._forgotten(thread_id)
        for eraser in ERASERS:
            await eraser(connection, thread_id)

    def _forgotten(self, thread_id: str) -> None:
        for forget in self.forget:
            forget(thread_id)
