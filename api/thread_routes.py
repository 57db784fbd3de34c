"""``/v1/threads``: erase a thread for good, as privacy requests ask for."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.dependencies import OpenService, Requester
from api.threads import checked_thread_id
from checkpoints.threads import thread_owner
from core.errors import NotFound
from core.logging import get_logger

log = get_logger(__name__)


def threads_router() -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1/threads", tags=["threads"])

    @router.delete("/{thread_id}", status_code=204)
    async def erase(
        thread_id: Annotated[str, Path(description="The thread (session) to erase")],
        service: OpenService,
        requester: Requester,
    ) -> None:
        """Erase a thread everywhere: checkpoints, session, what memory has of it, what waits for a person.

        409 while a run is in progress on it: a run may be about to tell the customer something, and what it
        does must stay on record until it is done. Nothing begins on the thread while it is being erased.
        404 for a thread that does not exist, so also for one that was erased before.
        """
        thread_id = checked_thread_id(thread_id)
        async with service.runs.quiet(thread_id):
            owner = await thread_owner(service.pool, thread_id)
            # A workflow that was not begun yet has no checkpoint.
            tenant = owner.tenant if owner else await service.workflows.store.tenant_of(thread_id)
            if tenant is None or tenant != requester.tenant:
                raise NotFound(f"there is no thread {thread_id!r}", details={"thread_id": thread_id})
            await service.erasure.erase(thread_id, tenant=tenant)
        log.info("thread_erased", thread_id=thread_id, graph=owner.graph if owner else None)

    return router
