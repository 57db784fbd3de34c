"""``/v1/runs``: what was asked for, where it stands, and its answer, whichever replica executes it."""

import asyncio
import re
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel, Field, JsonValue

from core.errors import InvalidRequest, NotFound, ThreadBusy
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes import sse
from service.routes.dependencies import Offset, OpenService, Requester
from service.runs.log.run_log import NumberedEvents, find_attempt_start
from service.runs.replay import load_result
from service.runs.rows import RunRow, RunStatus

# How often a run of another replica is looked at while a caller waits for it.
_POLL_SECONDS: Final = 0.25
# As many digits as Postgres has room for.
_EVENT_ID: Final = re.compile(r"[0-9]{1,18}")

RunId = Annotated[UUID, Path(description="The run, as X-Run-Id and the list name it")]


class RunView(BaseModel):
    """A run."""

    id: str
    thread_id: str
    graph: str
    status: RunStatus = Field(
        description="interrupted: it was cancelled or replaced, or waits for an answer on its thread"
    )
    multitask_strategy: str
    attempt: int = Field(description="How many replicas have executed it; more than 1: some died")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    replica: str | None = Field(description="Who executes it, or has a caller that waits for it")
    error: dict[str, JsonValue] | None = Field(description="{error, message, details} of one that failed")


class Runs(BaseModel):
    """Runs, latest first."""

    runs: list[RunView]


class RunAnswer(RunView):
    """A run that has ended, with what it answered."""

    output: dict[str, JsonValue] | None = Field(
        description="As the graph's invoke gives it; null: it ended without an answer, or its thread went on"
    )


def runs_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/runs", tags=["runs"])

    @router.get("")
    async def list_runs(
        service: OpenService,
        requester: Requester,
        *,
        thread_id: Annotated[str | None, Query(max_length=200)] = None,
        status: RunStatus | None = None,
        graph: Annotated[str | None, Query(max_length=100)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Offset = 0,
    ) -> Runs:
        """List runs, latest first."""
        rows = await service.run_store.list(
            requester.tenant, thread_id=thread_id, status=status, graph=graph, limit=limit, offset=offset
        )
        return Runs(runs=[_build_view(row) for row in rows])

    @router.get("/{run_id}")
    async def get_run(run_id: RunId, service: OpenService, requester: Requester) -> RunView:
        """Return one run."""
        return _build_view(await _get_run(service, requester, run_id))

    @router.get("/{run_id}/wait")
    async def wait_for_run(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        seconds: Annotated[float, Query(gt=0, le=600, description="How long to wait at most")] = 60,
    ) -> RunAnswer:
        """Wait for a run's end and return its answer; one that takes longer is returned as it is."""
        row = await _wait_until_ended(service, requester, run_id, seconds=seconds)
        output = await _load_output(service, row) if row.ended_at else None
        return RunAnswer(**_build_view(row).model_dump(), output=output)

    @router.get(
        "/{run_id}/stream",
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def stream_run(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        last_event_id: Annotated[str, Header(description="Continue after this event")] = "",
    ) -> Response:
        """Follow a run on whichever replica it is, from its first event or the one after ``Last-Event-ID``.

        The events of `POST /v1/messages`; ``attempt`` begins each attempt at the run: what an earlier one has
        streamed of an unfinished step is void. The last event is ``done`` with the run's answer, or
        ``error``. Events are there until two minutes after the run's end, later only the last one.
        """
        await _get_run(service, requester, run_id)
        if last_event_id and not _EVENT_ID.fullmatch(last_event_id):
            raise InvalidRequest("Last-Event-ID must be the id of an event of this run")
        return sse.stream_response(_follow(service, requester, run_id, int(last_event_id or 0)))

    _add_control_routes(router)
    return router


async def _follow(
    service: Service, identity: Identity, run_id: UUID, after: int
) -> AsyncGenerator[bytes, None]:
    events = NumberedEvents(after)
    async for numbered in service.followers.follow(str(run_id), find_attempt_start(after)):
        for event in events.convert(numbered):
            yield sse.format_event(event.name, event.data, id=str(event.id))
    row = await _get_run(service, identity, run_id)
    answer = RunAnswer(**_build_view(row).model_dump(), output=await _load_output(service, row))
    name = "error" if answer.output is None and answer.error else "done"
    yield sse.format_event(name, answer.model_dump(mode="json"))


def _add_control_routes(router: APIRouter) -> None:
    @router.post("/{run_id}/cancel", status_code=202)
    async def cancel_run(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        response: Response,
        *,
        action: Literal["interrupt", "rollback"] = "interrupt",
        wait: Annotated[bool, Query(description="Answer when the run has stopped, with 200")] = False,
    ) -> RunView:
        """Stop a run at its next step: ``interrupt`` keeps its steps, ``rollback`` deletes them and the run.

        404 for a run that has ended.
        """
        row = await _get_run(service, requester, run_id)
        cancelled = await service.runs.cancel(row, action)
        if not cancelled:
            raise NotFound(f"run {row.id!r} has ended: {row.status}", details={"status": row.status})
        if wait:
            response.status_code = 200
            row = await service.run_store.wait_until_ended(row)
        return _build_view(row)

    @router.post("/{run_id}/retry", status_code=202)
    async def retry_run(run_id: RunId, service: OpenService, requester: Requester) -> RunView:
        """Execute a run that failed once more, from its last checkpoint; what it did is not done twice.

        409 for a run that succeeded, is open, or whose thread went on.
        """
        row = await _get_run(service, requester, run_id)
        if not await service.runs.retry(row):
            raise ThreadBusy(
                f"run {row.id!r} cannot be retried: it is {row.status}, or another followed on its thread",
                details={"status": row.status},
            )
        return _build_view(await _get_run(service, requester, run_id))


async def _get_run(service: Service, identity: Identity, run_id: UUID) -> RunRow:
    row = await service.run_store.get(str(run_id))
    if row is None or row.tenant != identity.tenant or not row.graph:
        raise NotFound(f"there is no run {str(run_id)!r}", details={"id": str(run_id)})
    return row


async def _wait_until_ended(service: Service, identity: Identity, run_id: UUID, *, seconds: float) -> RunRow:
    deadline = asyncio.get_running_loop().time() + seconds
    while not (row := await _get_run(service, identity, run_id)).ended_at:
        pause = deadline - asyncio.get_running_loop().time()
        if pause <= 0 or service.runs.is_stopping:
            break
        await asyncio.sleep(min(pause, _POLL_SECONDS))
    return row


async def _load_output(service: Service, row: RunRow) -> dict[str, Any] | None:
    graph = service.graphs.get(row.graph)
    result = await load_result(graph, row.thread_id, row.id) if graph else None
    if result is None:
        return None
    output: dict[str, Any] = jsonable_encoder(result.to_output(row.thread_id, service.model))
    return output


def _build_view(row: RunRow) -> RunView:
    fields = {name: getattr(row, name) for name in RunView.model_fields if name != "replica"}
    return RunView(**fields, replica=row.claimed_by)
