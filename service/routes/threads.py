"""``/v1/threads``: erase a thread for good, as privacy requests require."""

from typing import Annotated

from fastapi import APIRouter, Path

from core.context import act_as
from core.logging import get_logger
from service.auth.principal import build_actor
from service.routes.dependencies import OpenService, Requester
from service.runs.request import check_thread_id

log = get_logger(__name__)


def threads_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/threads", tags=["threads"])

    @router.delete("/{thread_id}", status_code=204)
    async def erase(
        thread_id: Annotated[str, Path(description="The thread (session) to erase")],
        service: OpenService,
        requester: Requester,
    ) -> None:
        """Erase a thread everywhere: checkpoints, session, what memory holds of it, pending questions.

        409 while a run is in progress on it: the run may be about to tell the customer something, and its
        effects must stay on record until it is done. No run begins while the thread is being erased.
        404 for a thread that does not exist or was erased before.
        """
        thread_id = check_thread_id(thread_id)
        async with service.runs.hold_idle_thread(requester, thread_id) as hold:
            owner = await service.thread_owners.get_owner(requester, thread_id)
            act_as(build_actor(requester, thread_id=thread_id, run_id=hold))
            await service.erasure.erase(thread_id, tenant=requester.tenant)
        log.info("thread_erased", thread_id=thread_id, graph=owner.graph)

    return router
