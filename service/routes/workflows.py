"""``/v1/workflows``: run declarative workflows, watch them, and make them continue."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import PlainTextResponse

from core.errors import InvalidRequest
from service.auth.principal import Identity
from service.errors import error_body, to_service_error
from service.lifespan import Service
from service.routes import sse
from service.routes.dependencies import Offset, OpenService, Requester
from service.routes.workflow_models import (
    Checkpoints,
    DefinitionFault,
    Library,
    LibraryEntry,
    Queue,
    RecoveredWorkflow,
    RecoverWorkflow,
    RunWorkflow,
    SignalBody,
    StepOutput,
    StepOutputs,
    ValidationReport,
    WorkflowFilter,
    WorkflowList,
    WorkflowReport,
    WorkflowSummary,
)
from service.workflows.graphs import Change, RunView
from workflows.diagram import render_mermaid
from workflows.loader import LIBRARY
from workflows.schema import build_json_schema

WAIT_SECONDS = 60.0
RunId = Annotated[str, Path(description="The run")]


def workflows_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/workflows", tags=["workflows"])
    _add_definition_routes(router)
    _add_run_routes(router)
    _add_progress_routes(router)
    _add_control_routes(router)
    return router


def _add_definition_routes(router: APIRouter) -> None:
    @router.get("/schema")
    async def get_schema() -> dict[str, Any]:
        """Return the JSON Schema of a definition."""
        return build_json_schema()

    @router.get("/library")
    async def get_library() -> Library:
        """Return the definitions of the library."""
        return Library(workflows=[LibraryEntry.build(definition) for definition in LIBRARY.values()])

    @router.post("/validate")
    async def validate(request: RunWorkflow, service: OpenService) -> ValidationReport:
        """Return everything that is wrong with a workflow; its input is checked where it is given.

        Takes what ``POST /v1/workflows`` takes, and runs nothing.
        """
        values = request.input if "input" in request.model_fields_set else None
        faults = service.workflows.list_faults(request, values)
        return ValidationReport(valid=not faults, faults=[DefinitionFault(**fault) for fault in faults])


def _add_run_routes(router: APIRouter) -> None:
    @router.post("", status_code=202)
    async def start(
        request: RunWorkflow, service: OpenService, requester: Requester, response: Response
    ) -> WorkflowReport:
        """Run a workflow: 202 at once or, with ``wait``, 200 when it has ended or waits.

        422 with the list of all faults if the definition or its input has any.
        """
        workflows = service.workflows
        run = await workflows.start(
            requester,
            workflows.read_request(request),
            request.input,
            client_id=request.client_id or "",
            priority=request.priority,
        )
        if request.wait:
            settled = await workflows.worker.wait_until_settled(
                requester.tenant, run.id, seconds=WAIT_SECONDS
            )
            run = settled or run
            response.status_code = 200 if run.is_final or run.status == "waiting" else 202
        response.headers["Location"] = f"/v1/workflows/{run.id}"
        return WorkflowReport.build_from_view(await RunView.read(workflows.graphs, run))

    @router.get("")
    async def list_runs(
        service: OpenService, requester: Requester, which: Annotated[WorkflowFilter, Query()]
    ) -> WorkflowList:
        """Return runs, the latest first, and how busy workflows are."""
        store, slots = service.workflows.store, service.workflows.slots
        found = await store.list(requester.tenant, **which.model_dump())
        queue = Queue(
            runs=await store.count(requester.tenant),
            active_steps=slots.active,
            queued_steps=slots.waiting,
            max_concurrent_steps=slots.limit,
            policy=slots.policy,
        )
        return WorkflowList(workflows=[WorkflowSummary.build(summary) for summary in found], queue=queue)

    @router.get("/{run_id}")
    async def get_report(run_id: RunId, service: OpenService, requester: Requester) -> WorkflowReport:
        """Return the progress of a run, the state of each step, and the result."""
        return WorkflowReport.build_from_view(await service.workflows.view(requester, run_id))


def _add_progress_routes(router: APIRouter) -> None:
    @router.get("/{run_id}/outputs")
    async def list_outputs(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
        offset: Offset = 0,
    ) -> StepOutputs:
        """Return the output of each step, in the order they finished."""
        records = list((await service.workflows.view(requester, run_id)).records.items())
        outputs = [StepOutput.build(key, record) for key, record in records[offset : offset + limit]]
        return StepOutputs(outputs=outputs, total=len(records))

    @router.get("/{run_id}/diagram", response_class=PlainTextResponse)
    async def get_diagram(run_id: RunId, service: OpenService, requester: Requester) -> str:
        """Return a Mermaid flowchart, coloured by the state of each step."""
        view = await service.workflows.view(requester, run_id)
        return render_mermaid(view.definition, view.progress.steps)

    @router.get(
        "/{run_id}/events",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def stream_events(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        last_event_id: Annotated[str, Header()] = "",
    ) -> Response:
        """Stream progress: ``workflow`` (status, steps done of total) and ``step`` (started, ended, failed).

        The last event is ``done`` with the report, or ``error``. The id of an event is the time of the
        change: with ``Last-Event-ID`` the stream continues after it, without it starts with the present
        state.
        """
        await service.workflows.get(requester, run_id)
        try:
            since = float(last_event_id or 0)
        except ValueError:
            raise InvalidRequest("Last-Event-ID must be the id of an event of this stream") from None
        return sse.stream_response(_iter_events(service, requester, run_id, since))


def _add_control_routes(router: APIRouter) -> None:
    @router.post("/{run_id}/cancel", status_code=202)
    async def cancel(run_id: RunId, service: OpenService, requester: Requester) -> WorkflowSummary:
        """Cancel a run; one in progress stops at its next step. It can be recovered. 409 if it has ended."""
        return WorkflowSummary.build(await service.workflows.cancel(requester, run_id))

    @router.get("/{run_id}/checkpoints")
    async def list_checkpoints(
        run_id: RunId,
        service: OpenService,
        requester: Requester,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Checkpoints:
        """Return the checkpoints that a run can be rolled back to, the latest first."""
        workflow = await service.workflows.get(requester, run_id)
        return Checkpoints(checkpoints=await service.workflows.list_checkpoints(workflow, limit=limit))

    @router.post("/{run_id}/recover", status_code=202)
    async def recover(
        run_id: RunId, how: RecoverWorkflow, service: OpenService, requester: Requester
    ) -> RecoveredWorkflow:
        """Make a run continue: with its failed steps again, without them, or from a checkpoint.

        Finished steps do not run again, except after ``rollback_to_checkpoint``; idempotency keys stay the
        same.
        """
        await service.workflows.get(requester, run_id)
        recovery = await service.workflows.recover(requester, run_id, how.strategy, how.checkpoint_id)
        summary = WorkflowSummary.build(await service.workflows.get(requester, run_id))
        return RecoveredWorkflow(workflow=summary, steps=list(recovery.steps))

    @router.post("/{run_id}/signals/{name}", status_code=202)
    async def send_signal(
        run_id: RunId,
        name: Annotated[str, Path(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")],
        service: OpenService,
        requester: Requester,
        signal: SignalBody | None = None,
    ) -> WorkflowSummary:
        """Send a signal, which may come before the run waits for it. 409 if the run has ended."""
        payload = signal.payload if signal else None
        return WorkflowSummary.build(await service.workflows.signal(requester, run_id, name, payload))


async def _iter_events(
    service: Service, identity: Identity, run_id: str, since: float
) -> AsyncGenerator[bytes, None]:
    try:
        async for change in service.workflows.watch(
            identity, run_id, since=since, is_stopping=lambda: service.runs.is_stopping
        ):
            match change:
                case RunView():
                    yield sse.format_event("done", jsonable_encoder(WorkflowReport.build_from_view(change)))
                case Change():
                    event_id = f"{change.time:.6f}" if change.time else None
                    yield sse.format_event(change.name, change.data, id=event_id)
    except Exception as error:  # noqa: BLE001 - the stream has begun: the error becomes its last event
        described = to_service_error(error)
        yield sse.format_event("error", {**error_body(described), "status": described.status})
