"""``/v1/workflows``: run declarative workflows, watch them, and have them go on."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import JsonValue

from core.errors import InvalidRequest, NotFound, NothingToResume
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes import sse
from service.routes.dependencies import OpenService, Requester
from service.routes.workflow_definitions import input_for, library, named_or_given, validated
from service.routes.workflow_events import WorkflowEvents
from service.routes.workflow_models import (
    Checkpoints,
    Library,
    Queue,
    Recover,
    Recovered,
    RunWorkflow,
    Signal,
    StepOutputs,
    Validated,
    Which,
    WorkflowList,
    WorkflowReport,
    WorkflowSummary,
)
from service.routes.workflow_view import RunView, summary
from service.runs.thread_ids import new_thread_id
from service.workflows.recovery import checkpoints, recover
from workflows.definition.workflow import json_schema
from workflows.diagram import mermaid
from workflows.store import Run

WAIT_SECONDS = 60.0
RunId = Annotated[str, Path(description="The run")]


def workflows_router() -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1/workflows", tags=["workflows"])
    _definitions(router)
    _runs(router)
    _control(router)
    return router


def _definitions(router: APIRouter) -> None:
    @router.get("/schema")
    async def schema() -> dict[str, Any]:
        """The JSON Schema of a definition."""
        return json_schema()

    @router.get("/library")
    async def named() -> Library:
        """The named definitions."""
        return library()

    @router.post("/validate")
    async def validate(
        definition: Annotated[JsonValue, Body(description="As /v1/workflows/schema says")],
        service: OpenService,
    ) -> Validated:
        """Everything that is wrong with a definition, at once."""
        return validated(service, definition)


def _runs(router: APIRouter) -> None:
    @router.post("", status_code=202)
    async def run(
        asked: RunWorkflow, service: OpenService, requester: Requester, response: Response
    ) -> WorkflowReport:
        """Run a workflow: 202 at once, or with ``wait`` when it is over or waits for something.

        422 with the list of all faults where the definition or its input has any.
        """
        definition = named_or_given(service, asked)
        if asked.priority is not None:
            # Its steps are scheduled by the definition's.
            definition = definition.model_copy(update={"priority": asked.priority})
        begun, new = await service.workflows.store.add(
            id=new_thread_id(),
            tenant=requester.tenant,
            user_id=requester.user,
            client_id=asked.client_id or "",
            name=definition.name,
            definition=definition.model_dump(mode="json", exclude_unset=True),
            input=input_for(definition, asked.input),
            priority=definition.priority,
        )
        if new:
            service.workflows.keeper.wake()
        if asked.wait:
            keeper = service.workflows.keeper
            begun = await keeper.settled(requester.tenant, begun.id, seconds=WAIT_SECONDS) or begun
            response.status_code = 200 if begun.ended or begun.status == "waiting" else 202
        response.headers["Location"] = f"/v1/workflows/{begun.id}"
        return (await RunView.of(service.workflows.graphs, begun)).report()

    @router.get("")
    async def runs(
        service: OpenService,
        requester: Requester,
        which: Annotated[Which, Query()],
    ) -> WorkflowList:
        """Runs, the latest first, and how busy workflows are."""
        found = await service.workflows.store.list(requester.tenant, **which.model_dump())
        return WorkflowList(workflows=[summary(run) for run in found], queue=await _queue(service, requester))

    @router.get("/{run_id}")
    async def report(run_id: RunId, service: OpenService, requester: Requester) -> WorkflowReport:
        """How far a run is, what each step came to, and its result."""
        return (await _view(service, requester, run_id)).report()

    @router.get("/{run_id}/outputs")
    async def outputs(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> StepOutputs:
        """What each step gave, in the order they ended."""
        found = list((await _view(service, requester, run_id)).outputs())
        return StepOutputs(outputs=found[offset : offset + limit], total=len(found))

    @router.get("/{run_id}/diagram", response_class=PlainTextResponse)
    async def diagram(run_id: RunId, service: OpenService, requester: Requester) -> str:
        """A Mermaid flowchart, coloured by the state of each step."""
        view = await _view(service, requester, run_id)
        return mermaid(view.definition, view.progress.steps)

    @router.get(
        "/{run_id}/events",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def events(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        last_event_id: Annotated[str, Header()] = "",
    ) -> Response:
        """Progress as events ``workflow``, ``step`` and at the end ``done``; ``Last-Event-ID`` goes on."""
        await _run(service, requester, run_id)
        since = _since(last_event_id)
        watching = WorkflowEvents(
            service.workflows.store,
            service.workflows.graphs,
            since=since,
            stopping=lambda: service.runs.stopping,
        )
        return sse.stream(watching.of(requester.tenant, run_id))


def _control(router: APIRouter) -> None:
    @router.post("/{run_id}/cancel", status_code=202)
    async def cancel(run_id: RunId, service: OpenService, requester: Requester) -> WorkflowSummary:
        """Cancel a run; one in progress stops at its next step. It can be recovered. 409 where it is over."""
        known = await _run(service, requester, run_id)
        cancelled = await service.workflows.store.cancel(requester.tenant, run_id)
        if cancelled is None:
            raise NothingToResume(f"workflow {run_id!r} is over: it {known.status}")
        service.runs.stop(run_id)
        return summary(cancelled)

    @router.get("/{run_id}/checkpoints")
    async def history(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Checkpoints:
        """The moments a run can go back to, the latest first."""
        return await checkpoints(service, await _run(service, requester, run_id), limit=limit)

    @router.post("/{run_id}/recover", status_code=202)
    async def recovered(run_id: RunId, how: Recover, service: OpenService, requester: Requester) -> Recovered:
        """Have a run go on: its failed steps again or without them, or everything from a checkpoint on.

        What is done is not done again, but for ``rollback_to_checkpoint``; idempotency keys stay the same.
        """
        await _run(service, requester, run_id)
        recovery = await recover(service, requester, run_id, how)
        run = await _run(service, requester, run_id)
        return Recovered(workflow=summary(run), steps=list(recovery.steps))

    @router.post("/{run_id}/signals/{name}", status_code=202)
    async def signal(
        run_id: RunId,
        name: Annotated[str, Path(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")],
        service: OpenService,
        requester: Requester,
        sent: Signal | None = None,
    ) -> WorkflowSummary:
        """Send a signal; it may come before it is waited for. 409 where the run is over."""
        await _run(service, requester, run_id)
        payload = sent.payload if sent else None
        if not await service.workflows.store.signal(requester.tenant, run_id, name, payload):
            raise NothingToResume(f"workflow {run_id!r} is over, or has too many signals it never waited for")
        service.workflows.keeper.wake()
        return summary(await _run(service, requester, run_id))


async def _run(service: Service, identity: Identity, run_id: str) -> Run:
    run = await service.workflows.store.get(identity.tenant, run_id)
    if run is None:
        raise NotFound(f"there is no workflow {run_id!r}", details={"id": run_id})
    return run


async def _view(service: Service, identity: Identity, run_id: str) -> RunView:
    return await RunView.of(service.workflows.graphs, await _run(service, identity, run_id))


async def _queue(service: Service, identity: Identity) -> Queue:
    slots = service.workflows.slots
    return Queue(
        runs=await service.workflows.store.counts(identity.tenant),
        active_steps=slots.active,
        queued_steps=slots.waiting,
        max_concurrent_steps=slots.limit,
        policy=slots.policy,
    )


def _since(last_event_id: str) -> float:
    try:
        return float(last_event_id or 0)
    except ValueError:
        raise InvalidRequest("Last-Event-ID must be the id of an event of this stream") from None
