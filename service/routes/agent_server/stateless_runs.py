"""``/runs``: runs on threads of their own, many at once, and the cancellation of many."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import Field

from core.errors import BadRequest, InvalidRequest
from service.agent_server.run_body import RunBody
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes.agent_server import models
from service.routes.agent_server.http import AgentServerRoute, JsonResponse
from service.routes.agent_server.runs import answer_run, location_headers, show_run
from service.routes.dependencies import OpenService, Requester
from service.runs.request import RunRequest, new_thread_id
from service.runs.rows import RunRow

MAX_BATCH = 100


class RunsCancel(models.Body):
    """Which runs to cancel: some of a thread, or all of the tenant in a status."""

    thread_id: UUID | None = None
    run_ids: list[UUID] | None = Field(None, max_length=1_000)
    status: Literal["pending", "running", "all"] | None = None


def stateless_runs_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/runs", tags=["runs"], route_class=AgentServerRoute)

    @router.post("")
    async def create_stateless_run(body: RunBody, service: OpenService, requester: Requester) -> Response:
        """Have a run executed in the background, on a thread of its own."""
        row = await _enqueue(service, requester, body)
        return JsonResponse(show_run(row), headers=location_headers(row.thread_id, row.id))

    @router.post("/wait")
    async def wait_for_stateless_run(
        body: RunBody, request: Request, service: OpenService, requester: Requester
    ) -> Response:
        """Execute a run on a thread of its own and return the values at its end."""
        return await answer_run(service, await build_stateless_run(service, requester, body), request)

    @router.post("/batch")
    async def create_runs(
        bodies: Annotated[list[RunBody], Body(min_length=1, max_length=MAX_BATCH)],
        service: OpenService,
        requester: Requester,
    ) -> Response:
        """Have several runs executed in the background, each on a thread of its own."""
        return JsonResponse([show_run(await _enqueue(service, requester, body)) for body in bodies])

    @router.post("/cancel", status_code=204)
    async def cancel_runs(
        body: RunsCancel,
        service: OpenService,
        requester: Requester,
        action: Annotated[Literal["interrupt", "rollback"], Query()] = "interrupt",
    ) -> None:
        """Stop some runs of a thread, or all pending or running ones of the tenant."""
        by_id = body.thread_id is not None and body.run_ids is not None
        if by_id == (body.status is not None):
            raise InvalidRequest("name a thread_id and run_ids, or a status, and not both")
        for row in await _select(service, requester, body):
            await service.runs.cancel(row, action)

    return router


async def build_stateless_run(service: Service, identity: Identity, body: RunBody) -> RunRequest:
    """Return the request for a run on a new thread, which is erased afterwards unless the body keeps it.

    Raises:
        BadRequest: The body answers or continues a run, which a new thread cannot have.
    """
    if body.command is not None and body.command.resume is not None:
        raise BadRequest("a run without a thread has nothing to resume; name its thread in the path")
    return await service.run_builder.build(
        identity,
        body,
        thread_id=new_thread_id(),
        fresh=True,
        may_create_thread=True,
        delete_thread=body.on_completion == "delete",
    )


async def _enqueue(service: Service, identity: Identity, body: RunBody) -> RunRow:
    request = await build_stateless_run(service, identity, body)
    return await service.runs.enqueue(request, after_seconds=body.after_seconds)


async def _select(service: Service, identity: Identity, body: RunsCancel) -> list[RunRow]:
    if body.status is None:
        found: list[Any] = [await service.run_store.get(str(run_id)) for run_id in body.run_ids or ()]
        return [
            row
            for row in found
            if row and row.tenant == identity.tenant and row.thread_id == str(body.thread_id)
        ]
    statuses: list[Any] = ["pending", "running"] if body.status == "all" else [body.status]
    return [
        row
        for status in statuses
        for row in await service.run_store.list(identity.tenant, status=status, limit=1_000)
    ]
