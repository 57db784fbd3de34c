"""Whose a thread is. The one place that lets somebody at a thread, or says that there is none.

A thread belongs to the tenant it was begun by; so do its session, its approvals and whatever else has its id.
The tenant is the wall, as the people of one company share their customers; the user is written down beside
it. What is another tenant's does not exist: the answer is that to an id nobody has used.
"""

from collections.abc import Mapping
from typing import Any

from checkpoints.threads import ThreadOwner, load_thread_owner
from core.errors import NotFound
from core.postgres import Connection, Pool
from service.auth.principal import LOCAL, Identity
from service.sessions.store import find_session_tenant
from workflows.store import run_tenant

# Where a checkpoint's metadata names who its run was for.
TENANT_KEY = "tenant"
USER_KEY = "user"


def no_such_thread(thread_id: str) -> NotFound:
    """What is said of a thread that is not there, or not the caller's."""
    return NotFound(f"there is no thread {thread_id!r}", details={"thread_id": thread_id})


class Ownership:
    """Knows whose threads are.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def own(self, identity: Identity, thread_id: str) -> ThreadOwner:
        """A thread of the caller's tenant.

        Raises:
            NotFound: There is none.
        """
        async with self._pool.connection() as connection:
            owner = await load_thread_owner(connection, thread_id)
            if owner is None and (tenant := await run_tenant(connection, thread_id)):
                # A workflow that was not begun yet has no checkpoint.
                owner = ThreadOwner(graph=None, tenant=tenant)
        if owner is None or owner.tenant != identity.tenant:
            raise no_such_thread(thread_id)
        return owner

    async def require(self, identity: Identity, thread_id: str, metadata: Mapping[str, Any] | None) -> None:
        """Let a caller go on with a thread, or begin one under an id of their choice.

        Args:
            identity: The caller.
            thread_id: The thread.
            metadata: Of its latest checkpoint; None: nothing has run on it yet. One without a tenant was
                written where there was but one.

        Raises:
            NotFound: It is another tenant's, or a session or a workflow of theirs has the id, with
                nothing run in it yet.
        """
        if metadata is not None:
            if metadata.get(TENANT_KEY, LOCAL.tenant) != identity.tenant:
                raise no_such_thread(thread_id)
            return
        async with self._pool.connection() as connection:
            tenant = await find_session_tenant(connection, thread_id) or await run_tenant(
                connection, thread_id
            )
        if tenant not in {None, identity.tenant}:
            raise no_such_thread(thread_id)


async def require_unclaimed(connection: Connection, thread_id: str, *, identity: Identity) -> None:
    """Let a caller open a session under an id of their choice, in the transaction that opens it.

    Raises:
        NotFound: A thread of another tenant has the id.
    """
    owner = await load_thread_owner(connection, thread_id)
    if owner is not None and owner.tenant != identity.tenant:
        raise no_such_thread(thread_id)
