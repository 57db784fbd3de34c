"""The table of threads: whose a thread is, and which person has taken it over.

A thread belongs to the tenant that began it; so do its session, its approvals and whatever else carries its
id. A caller cannot tell another tenant's thread from an id that was never used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.rows import DictRow

from core.context import current_actor
from core.errors import NotFound, ThreadBusy
from core.postgres import Connection, Pool
from service.auth.principal import Identity
from service.runs.store import QUERIES


def no_such_thread(thread_id: str) -> NotFound:
    """Return the error for a thread that does not exist or is not the caller's."""
    return NotFound(f"there is no thread {thread_id!r}", details={"thread_id": thread_id})


@dataclass(frozen=True, slots=True)
class ThreadOwner:
    """Whose a thread is, and the graph of its runs; ``None``: nothing has run on it yet."""

    tenant: str
    graph: str | None


class ThreadOwners:
    """Look up thread owners.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get_owner(self, identity: Identity, thread_id: str) -> ThreadOwner:
        """Return the owner of a thread of the caller's tenant.

        Raises:
            NotFound: The tenant has no such thread.
        """
        owner = await self.find_owner(thread_id)
        if owner is None or owner.tenant != identity.tenant:
            raise no_such_thread(thread_id)
        return owner

    async def find_owner(self, thread_id: str) -> ThreadOwner | None:
        """Return a thread's owner, of whichever tenant; ``None``: nothing has the id yet."""
        async with self._pool.connection() as connection:
            return await load_thread_owner(connection, thread_id)


class ThreadHolders:
    """Record which threads people have taken over from the agents.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def hold(self, tenant: str, thread_id: str, user: str, *, take_over: bool) -> bool:
        """Let a person hold a thread; return whether they do, as another one may."""
        values = {"tenant": tenant, "thread": thread_id, "user": user, "take_over": take_over}
        return await self._fetch("hold_thread", values) is not None

    async def free(self, tenant: str, thread_id: str, user: str, *, take_over: bool) -> bool:
        """Give a thread back to the agents; return whether it was the person's to give."""
        values = {"tenant": tenant, "thread": thread_id, "user": user, "take_over": take_over}
        return await self._fetch("free_thread", values) is not None

    async def get(self, tenant: str, thread_id: str) -> str:
        """Return the person who holds a thread; empty: nobody, or there is no such thread."""
        row = await self._fetch("get_holder", {"tenant": tenant, "thread": thread_id})
        return str(row["held_by"]) if row else ""

    async def _fetch(self, query: str, values: Mapping[str, Any]) -> DictRow | None:
        async with self._pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchone()


async def take_thread(connection: Connection, thread_id: str, *, tenant: str, user: str) -> None:
    """Give a thread's id to a tenant, in the transaction that stores what has the same id.

    Raises:
        NotFound: It is another tenant's.
    """
    values = {"thread": thread_id, "tenant": tenant, "user": user}
    row = None
    # Empty while another transaction has inserted the row and not committed before ours began.
    while row is None:
        row = await (await connection.execute(QUERIES["own_thread"], values)).fetchone()
    if row["tenant"] != tenant:
        raise no_such_thread(thread_id)


async def load_thread_owner(connection: Connection, thread_id: str) -> ThreadOwner | None:
    """Return a thread's owner; ``None``: there is no such thread."""
    row = await (await connection.execute(QUERIES["get_thread"], {"thread": thread_id})).fetchone()
    return ThreadOwner(**row) if row else None


async def erase_thread(connection: Connection, thread_id: str) -> None:
    """Delete a thread's row and its runs in the caller's transaction.

    Raises:
        ThreadBusy: A run is in progress or waits, other than that of the erasure itself.
    """
    values = {"thread": thread_id, "except": current_actor().run_id}
    if await (await connection.execute(QUERIES["find_open"], values)).fetchone():
        raise ThreadBusy(
            f"thread {thread_id!r} has a run in progress; cancel it or wait, then try again", retry_after=1
        )
    await connection.execute(QUERIES["erase_runs"], values)
    await connection.execute(QUERIES["erase_thread"], values)
