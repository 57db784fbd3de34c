"""Erase a thread everywhere something of it is kept.

Here rooms say what they keep: a room whose tables hold something of a thread adds its eraser to
``ERASERS``, and one that remembers something in the process's memory has it forgotten in ``open_service``.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from checkpoints.threads import OWNER_SQL, delete_checkpoints
from core.context import current_actor
from core.memory import Memory, Scope
from core.postgres import Pool
from service.audit.idempotency import erase_effects, erase_request_keys
from service.audit.trail import Entry, record_entry
from service.sessions.store import erase_session
from workflows.store import erase_run

Eraser: TypeAlias = Callable[[AsyncConnection[DictRow], str], Awaitable[None]]

# Run one after the other in one transaction: a thread is erased everywhere, or nowhere.
ERASERS: tuple[Eraser, ...] = (
    delete_checkpoints,
    erase_session,
    erase_effects,
    erase_request_keys,
    erase_run,
)


async def _nothing_queued() -> None:
    """Where nobody writes."""


# Whom a thread is about: its session's contact, or the one its graph was given.
CONTACT_SQL = """
SELECT coalesce(
    (SELECT contact_id FROM sessions.sessions WHERE id = %(thread)s),
    (SELECT checkpoint -> 'channel_values' ->> 'contact_id' FROM checkpoints
     WHERE thread_id = %(thread)s AND checkpoint_ns = '' ORDER BY checkpoint_id DESC LIMIT 1)
) AS contact_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """Takes threads out for good.

    Attributes:
        pool: Connections.
        memory: What is remembered of contacts; it may be another service, so it takes no part in the
            transaction. ``None``: nothing is.
        settled: Waits until what runs have queued is written, so that nothing comes after the erasure.
        forget: What drops a thread from the process's memory; called before and after its rows go, as a
            reader may have remembered it in between.
    """

    pool: Pool
    memory: Memory | None = None
    settled: Callable[[], Awaitable[None]] = _nothing_queued
    forget: Sequence[Callable[[str], None]] = ()

    async def erase(self, thread_id: str, *, tenant: str) -> None:
        """Erase a thread and what memory has of it; nothing is said of one that does not exist.

        Memory comes first: should it be away, nothing is erased yet, and asking again does all of it.

        Raises:
            MemoryUnavailable: The memory is away.
        """
        await self.settled()
        await self._forget(thread_id, tenant)
        async with self.pool.connection() as connection, connection.transaction():
            await self.erase_in(connection, thread_id)
        self._forgotten(thread_id)

    async def erase_in(self, connection: AsyncConnection[DictRow], thread_id: str) -> None:
        """The same, as a part of the caller's transaction, with the audit's entry of it.

        What the audit has of the thread stays: it says that and when things were done, by whom, and no longer
        with which words.
        """
        self._forgotten(thread_id)
        owner = await (await connection.execute(OWNER_SQL, (thread_id,))).fetchone()
        for eraser in ERASERS:
            await eraser(connection, thread_id)
        if owner:
            by = replace(
                current_actor(), tenant=owner["tenant"] or current_actor().tenant, thread_id=thread_id
            )
            await record_entry(
                connection, Entry(action="erasure", outcome="erased", tool=owner["graph"] or "", actor=by)
            )

    async def _forget(self, thread_id: str, tenant: str) -> None:
        if self.memory is None:
            return
        async with self.pool.connection() as connection:
            row = await (await connection.execute(CONTACT_SQL, {"thread": thread_id})).fetchone()
        if row and row["contact_id"]:
            await self.memory.forget(Scope(tenant, row["contact_id"]), session_id=thread_id)

    def _forgotten(self, thread_id: str) -> None:
        for forget in self.forget:
            forget(thread_id)
