"""``/threads``: create, find, change and delete threads."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Query, Request, Response

from core.context import act_as
from core.errors import ThreadBusy
from core.logging import get_logger
from service.agent_server.extraction import extract
from service.agent_server.run_builder import build_command
from service.agent_server.state import StateChange, list_interrupts, load_snapshot
from service.agent_server.threads import Thread
from service.auth.principal import Identity, build_actor
from service.lifespan import Service
from service.routes.agent_server.http import (
    AgentServerRoute,
    JsonResponse,
    ThreadId,
    page_response,
    select_fields,
)
from service.routes.agent_server.models import (
    ThreadCount,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
    ThreadView,
    UpdateBody,
)
from service.routes.agent_server.state_changes import write_supersteps
from service.routes.dependencies import OpenService, Requester

log = get_logger(__name__)

FIELDS: Final = (
    "thread_id",
    "created_at",
    "updated_at",
    "metadata",
    "status",
    "config",
    "values",
    "interrupts",
)
# Their states are read from the checkpoints, a few at a time.
_STATE_FIELDS: Final = frozenset({"values", "interrupts"})
_READERS: Final = 4
# How long runs in progress have to stop before their thread is erased.
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


def threads_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/threads", tags=["threads"], route_class=AgentServerRoute)

    @router.post("", response_model=ThreadView)
    async def create_thread(body: ThreadCreate, service: OpenService, requester: Requester) -> Response:
        """Create a thread."""
        thread = await service.threads.create(
            requester,
            body.thread_id or uuid4(),
            metadata=body.metadata,
            is_found_enough=body.if_exists == "do_nothing",
        )
        if body.ttl:
            await service.threads.set_ttl(
                requester.tenant, thread["thread_id"], body.ttl.ttl, body.ttl.strategy
            )
        if body.supersteps:
            changes = [[_read_change(each, requester) for each in step.updates] for step in body.supersteps]
            await write_supersteps(service, requester, thread["thread_id"], changes)
            thread = await service.threads.get(requester.tenant, UUID(thread["thread_id"]))
        return JsonResponse(await show_thread(service, thread))

    @router.post("/search", response_model=list[ThreadView])
    async def search_threads(body: ThreadSearch, service: OpenService, requester: Requester) -> Response:
        """List threads, whichever API began them."""
        filters = body.model_dump(include={"metadata", "values", "status"})
        rows = await service.threads.search(
            requester.tenant,
            filters={**filters, "ids": None if body.ids is None else [str(each) for each in body.ids]},
            sort_by=body.sort_by,
            descending=body.sort_order == "desc",
            limit=body.limit,
            offset=body.offset,
        )
        shown = await _show_all(service, rows, body.select, body.extract or {})
        return page_response(shown, limit=body.limit, offset=body.offset)

    @router.post("/count")
    async def count_threads(body: ThreadCount, service: OpenService, requester: Requester) -> int:
        """Count threads."""
        return await service.threads.count(requester.tenant, body.model_dump())

    _add_routes_of_one(router)
    return router


def _add_routes_of_one(router: APIRouter) -> None:
    @router.get("/{thread_id}", response_model=ThreadView)
    async def get_thread(
        thread_id: ThreadId,
        service: OpenService,
        requester: Requester,
        include: Annotated[list[Literal["ttl"]] | None, Query(description="What to show beside")] = None,
    ) -> Response:
        """Return a thread with its state and what it waits for."""
        thread = await service.threads.get(requester.tenant, thread_id)
        shown = await show_thread(service, thread)
        return JsonResponse({**shown, "ttl": thread["ttl"]} if include else shown)

    @router.patch("/{thread_id}", response_model=ThreadView)
    async def update_thread(
        thread_id: ThreadId,
        body: ThreadPatch,
        request: Request,
        service: OpenService,
        requester: Requester,
    ) -> Response:
        """Merge metadata into a thread's. ``Prefer: return=minimal`` has it answered with 204."""
        if body.ttl:
            await service.threads.set_ttl(requester.tenant, str(thread_id), body.ttl.ttl, body.ttl.strategy)
        thread = await service.threads.update(requester.tenant, thread_id, body.metadata)
        if "return=minimal" in request.headers.get("prefer", ""):
            return Response(status_code=204)
        return JsonResponse(await show_thread(service, thread))

    @router.delete("/{thread_id}", status_code=204)
    async def delete_thread(thread_id: ThreadId, service: OpenService, requester: Requester) -> None:
        """Erase a thread everywhere, with its runs; those in progress are stopped first."""
        thread = await service.threads.get(requester.tenant, thread_id)
        await erase(service, requester, thread["thread_id"])


def _read_change(body: UpdateBody, identity: Identity) -> StateChange:
    values = build_command(body.command, identity) if body.command else body.values
    return StateChange(values, body.as_node)


async def erase(service: Service, identity: Identity, thread_id: str) -> None:
    """Stop a thread's runs and erase it.

    Raises:
        ThreadBusy: Its runs did not stop in time.
        NotFound: The tenant has no such thread.
    """
    deadline = asyncio.get_running_loop().time() + _STOP_SECONDS
    while True:
        await service.runs.cancel_thread(identity.tenant, thread_id)
        try:
            async with service.runs.hold_idle_thread(identity, thread_id) as hold:
                act_as(build_actor(identity, thread_id=thread_id, run_id=hold))
                await service.erasure.erase(thread_id, tenant=identity.tenant)
        except ThreadBusy:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            log.info("thread_erased", thread_id=thread_id)
            return


async def show_thread(service: Service, thread: Thread) -> dict[str, Any]:
    """Return a thread with its state as clients read it."""
    [shown] = await _show_all(service, [thread], None, {})
    return shown


async def _show_all(
    service: Service, threads: Sequence[Thread], select: Sequence[str] | None, paths: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return threads as clients read them, with the parts of their states that are asked for."""
    needs_state = bool(paths) or select is None or not _STATE_FIELDS.isdisjoint(select)
    slots = asyncio.Semaphore(_READERS)

    async def show(thread: Thread) -> dict[str, Any]:
        state: dict[str, Any] = {"values": None, "interrupts": {}, "config": {}}
        if needs_state:
            async with slots:
                snapshot = await load_snapshot(service.catalogue, thread["graph"], thread["thread_id"])
            if snapshot:
                state |= {"values": snapshot.values, "interrupts": list_interrupts(snapshot)}
        whole = {**thread, **state}
        shown = select_fields(whole, select, FIELDS)
        return {**shown, "extracted": extract(whole, paths)} if paths else shown

    return list(await asyncio.gather(*map(show, threads)))
