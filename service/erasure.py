"""Erase a thread everywhere that something of it is stored.

A room whose tables hold something of a thread adds its eraser to ``ERASERS``; one that holds something in
the process's memory passes a function to :class:`Erasure`.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from checkpoints.threads import delete_checkpoints
from core.context import current_actor
from core.memory import ErasedCounts, Memory, Scope
from core.postgres import Connection, Pool
from service.audit.idempotency import erase_effects, erase_request_keys
from service.audit.trail import Entry, record_entry
from service.outbox.events import erase_events, erase_facts
from service.runs.threads import erase_thread, load_thread_owner
from service.sessions.journeys import erase_journey
from service.sessions.store import erase_session
from workflows.store import erase_run

Eraser: TypeAlias = Callable[[Connection, str], Awaitable[None]]

# All of them run in one transaction: a thread is erased everywhere or nowhere.
ERASERS: tuple[Eraser, ...] = (
    erase_thread,
    delete_checkpoints,
    erase_session,
    erase_journey,
    erase_effects,
    erase_request_keys,
    erase_run,
    erase_events,
)

# The contact a thread is about: its session's, or the one its graph was given.
CONTACT_SQL = """
SELECT coalesce(
    (SELECT contact_id FROM sessions.sessions WHERE id = %(thread)s),
    (SELECT checkpoint -> 'channel_values' ->> 'contact_id' FROM checkpoints
     WHERE thread_id = %(thread)s AND checkpoint_ns = '' ORDER BY checkpoint_id DESC LIMIT 1)
) AS contact_id
"""


async def _wait_for_nothing() -> None:
    """Return at once, where nothing is written in the background."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """Erases threads for good.

    Attributes:
        pool: The service's pool.
        memory: The memory service, which takes no part in the transaction as it may be another process.
            ``None``: nothing is remembered.
        settled: Waits until what runs have queued is written, so that nothing is written after the erasure.
        forget: Functions that drop a thread from the process's memory. They are called before and after its
            rows are deleted, because a reader may have cached it in between.
    """

    pool: Pool
    memory: Memory | None = None
    settled: Callable[[], Awaitable[None]] = _wait_for_nothing
    forget: Sequence[Callable[[str], None]] = ()

    async def erase(self, thread_id: str, *, tenant: str) -> None:
        """Erase a thread and what memory holds of it; do nothing if it does not exist.

        Memory comes first: if it is unavailable, nothing is erased yet, and a second try erases everything.

        Raises:
            MemoryUnavailable: The memory service is unavailable.
        """
        await self.settled()
        await self._erase_memory(thread_id, tenant)
        async with self.pool.connection() as connection, connection.transaction():
            await self.erase_in(connection, thread_id)
        self._forget_in_process(thread_id)

    async def forget_contact(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:
        """Erase what memory holds of a contact, or learnt in one session, and record that in the audit trail.

        The threads of the contact's conversations stay.

        Raises:
            MemoryUnavailable: The memory service is unavailable.
        """
        erased = await self.memory.forget(scope, session_id=session_id) if self.memory else ErasedCounts()
        entry = Entry(
            action="erasure",
            outcome="erased",
            tool="memory",
            arguments={"contact_id": scope.contact_id, "session_id": session_id},
            details=erased.counts,
        )
        async with self.pool.connection() as connection, connection.transaction():
            await erase_facts(connection, scope.tenant, scope.contact_id, session_id)
            await record_entry(connection, entry)
        return erased

    async def erase_in(self, connection: Connection, thread_id: str) -> None:
        """Erase a thread's rows within the caller's transaction, and record that in the audit trail.

        The audit trail keeps its entries of the thread: what was done, when and by whom, without the words.
        """
        self._forget_in_process(thread_id)
        owner = await load_thread_owner(connection, thread_id)
        for eraser in ERASERS:
            await eraser(connection, thread_id)
        if owner:
            actor = replace(current_actor(), tenant=owner.tenant, thread_id=thread_id)
            await record_entry(
                connection, Entry(action="erasure", outcome="erased", tool=owner.graph or "", actor=actor)
            )

    async def _erase_memory(self, thread_id: str, tenant: str) -> None:
        if self.memory is None:
            return
        async with self.pool.connection() as connection:
            row = await (await connection.execute(CONTACT_SQL, {"thread": thread_id})).fetchone()
        if row and row["contact_id"]:
            await self.memory.forget(Scope(tenant, row["contact_id"]), session_id=thread_id)

    def _forget_in_process(self, thread_id: str) -> None:
        for forget in self.forget:
            forget(thread_id)
