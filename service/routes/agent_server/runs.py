"""``/threads/{thread_id}/runs``: create, list, wait for, cancel and delete runs."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from core.errors import NotFound, ServiceError
from service.agent_server.run_body import RunBody
from service.agent_server.state import load_run_end
from service.auth.principal import Identity
from service.encoding import dump_json
from service.errors import to_service_error
from service.lifespan import Service
from service.routes.agent_server.http import (
    MAX_LIMIT,
    AgentServerRoute,
    JsonResponse,
    RunId,
    ThreadId,
    page_response,
    select_fields,
)
from service.routes.dependencies import Offset, OpenService, Requester, answer_until_disconnect
from service.runs.output import INTERRUPT_UPDATE, RunResult, interrupt_to_dict
from service.runs.request import RunRequest
from service.runs.rows import RunRow, RunStatus

FIELDS: Final = (
    "run_id",
    "thread_id",
    "assistant_id",
    "created_at",
    "updated_at",
    "status",
    "metadata",
    "multitask_strategy",
    "cancel_reason",
    "kwargs",
)
HEARTBEAT_SECONDS: Final = 5.0

Values: TypeAlias = dict[str, Any]


def runs_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/threads/{thread_id}/runs", tags=["runs"], route_class=AgentServerRoute)

    @router.post("")
    async def create_run(
        thread_id: ThreadId, body: RunBody, service: OpenService, requester: Requester
    ) -> Response:
        """Have a run executed in the background."""
        request = await service.run_builder.build(requester, body, thread_id=str(thread_id))
        row = await service.runs.enqueue(request, after_seconds=body.after_seconds)
        return JsonResponse(show_run(row), headers=location_headers(row.thread_id, row.id))

    @router.get("")
    async def list_runs(
        thread_id: ThreadId,
        service: OpenService,
        requester: Requester,
        *,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 10,
        offset: Offset = 0,
        status: RunStatus | None = None,
        select: Annotated[list[str] | None, Query()] = None,
    ) -> Response:
        """List a thread's runs, latest first."""
        await service.thread_owners.get_owner(requester, str(thread_id))
        rows = await service.run_store.list(
            requester.tenant, thread_id=str(thread_id), status=status, limit=limit, offset=offset
        )
        shown = [select_fields(show_run(row), select, FIELDS) for row in rows]
        return page_response(shown, limit=limit, offset=offset)

    @router.post("/wait")
    async def wait_for_new_run(
        thread_id: ThreadId, body: RunBody, request: Request, service: OpenService, requester: Requester
    ) -> Response:
        """Execute a run and return the thread's values at its end; newlines come while it takes longer."""
        run = await service.run_builder.build(requester, body, thread_id=str(thread_id))
        return await answer_run(service, run, request)

    _add_routes_of_one(router)
    return router


def _add_routes_of_one(router: APIRouter) -> None:
    @router.get("/{run_id}")
    async def get_run(
        thread_id: ThreadId, run_id: RunId, service: OpenService, requester: Requester
    ) -> Response:
        """Return a run."""
        return JsonResponse(show_run(await find_run(service, requester, thread_id, run_id)))

    @router.delete("/{run_id}", status_code=204)
    async def delete_run(
        thread_id: ThreadId, run_id: RunId, service: OpenService, requester: Requester
    ) -> None:
        """Delete a run; one in progress is stopped first. The thread keeps what it did."""
        row = await find_run(service, requester, thread_id, run_id)
        await service.runs.cancel(row, "interrupt")
        await service.run_store.wait_until_ended(row)
        await service.run_store.delete(row.id)

    @router.get("/{run_id}/join")
    async def join_run(
        thread_id: ThreadId, run_id: RunId, request: Request, service: OpenService, requester: Requester
    ) -> Response:
        """Wait for a run's end and return the thread's values."""
        row = await find_run(service, requester, thread_id, run_id)

        async def load() -> Values:
            return await load_values(service, await service.run_store.wait_until_ended(row), is_join=True)

        answer = heartbeat_response(load(), location_headers(row.thread_id, row.id))
        return await answer_until_disconnect(request, answer)

    @router.post("/{run_id}/cancel", status_code=202)
    async def cancel_run(
        thread_id: ThreadId,
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        *,
        wait: Annotated[bool, Query(description="Answer when the run has stopped, with 200")] = False,
        action: Literal["interrupt", "rollback"] = "interrupt",
    ) -> Response:
        """Stop a run at its next step; ``rollback`` deletes it and its steps. 404 for one that has ended."""
        row = await find_run(service, requester, thread_id, run_id)
        if not await service.runs.cancel(row, action):
            raise NotFound(f"run {row.id!r} has ended: {row.status}", details={"status": row.status})
        if not wait:
            return JsonResponse({}, status_code=202)
        ended = await service.run_store.wait_until_ended(row)
        return JsonResponse(await load_values(service, ended, is_join=True))


def show_run(row: RunRow) -> dict[str, Any]:
    """Return a run as clients read it."""
    return {
        "run_id": row.id,
        "thread_id": row.thread_id,
        "assistant_id": row.assistant_id,
        "created_at": row.created_at,
        "updated_at": row.ended_at or row.started_at or row.created_at,
        "status": row.status,
        "metadata": row.metadata,
        "multitask_strategy": row.multitask_strategy,
        "cancel_reason": row.cancel_reason,
        "error": row.error,
        "kwargs": {},
    }


def location_headers(thread_id: str, run_id: str) -> dict[str, str]:
    """Return the headers that tell clients of a run, and where they get its answer if they lose it."""
    path = f"/threads/{thread_id}/runs/{run_id}"
    return {"Content-Location": path, "Location": f"{path}/join"}


async def find_run(service: Service, identity: Identity, thread_id: object, run_id: object) -> RunRow:
    """Return a run of a thread.

    Raises:
        NotFound: The tenant has no such run, or it is another thread's.
    """
    row = await service.run_store.get(str(run_id))
    if row is None or row.tenant != identity.tenant or row.thread_id != str(thread_id) or not row.graph:
        raise NotFound(f"there is no run {str(run_id)!r} on this thread", details={"run_id": str(run_id)})
    return row


async def load_values(service: Service, row: RunRow, *, is_join: bool) -> Values:
    """Return what a run that has ended left: values, questions, or the error it failed with.

    Args:
        service: The open service.
        row: The run.
        is_join: Whether the caller did not begin the run; of one that waits, they get the questions alone.
    """
    if row.error and row.status in {"error", "timeout"}:
        return {"__error__": {name: row.error.get(name) for name in ("error", "message")}}
    snapshot = await load_run_end(service.catalogue, row)
    if snapshot is None:
        return {}
    interrupts = [interrupt_to_dict(pending) for pending in snapshot.interrupts]
    return show_result(snapshot.values, interrupts, is_join=is_join)


def show_result(values: Values, interrupts: list[dict[str, Any]], *, is_join: bool) -> Values:
    """Return values with the questions that the run waits with."""
    if not interrupts:
        return values
    return {**({} if is_join else values), INTERRUPT_UPDATE: interrupts}


async def answer_run(service: Service, run: RunRequest, request: Request) -> Response:
    """Execute a run and answer with its values.

    A run that is refused has the refusal's status; one that fails later is answered with ``__error__``.
    """

    async def execute() -> Values:
        result = RunResult()
        async with service.runs.stream(run) as parts:
            try:
                async for part in parts:
                    result.take(part)
            except ServiceError as error:
                return _show_error(error)
        return show_result(result.values, result.interrupts, is_join=False)

    answer = heartbeat_response(execute(), location_headers(run.thread_id, run.run_id))
    return await answer_until_disconnect(request, answer)


async def heartbeat_response(making: Coroutine[Any, Any, Values], headers: dict[str, str]) -> Response:
    """Answer with values as soon as they are there, and with newlines until then.

    An error that comes before the first newline has its own status; a later one is in the body.
    """
    task = asyncio.create_task(making)
    try:
        await asyncio.wait({task}, timeout=HEARTBEAT_SECONDS)
    except BaseException:
        task.cancel()
        raise
    if task.done():
        return JsonResponse(task.result(), headers=headers)
    return StreamingResponse(_wait(task), media_type="application/json", headers=headers)


async def _wait(task: asyncio.Task[Values]) -> AsyncGenerator[bytes, None]:
    try:
        while not task.done():
            yield b"\n"
            await asyncio.wait({task}, timeout=HEARTBEAT_SECONDS)
        try:
            values = task.result()
        except Exception as error:  # noqa: BLE001 - to_service_error() types it, and the status is sent
            values = _show_error(to_service_error(error))
        yield dump_json(values)
    finally:
        # Where the client is gone: whether the run goes on without it is the run's own matter.
        task.cancel()


def _show_error(error: ServiceError) -> Values:
    return {"__error__": {"error": error.code, "message": error.message}}
