"""``/v1/approvals``: what waits for a person, and their decisions.

There is no table of approvals. A question is pending if its thread's latest checkpoint says so, which
survives a restart and cannot disagree with the run. ``waiting_threads`` only says where to look.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Query
from fastapi.encoders import jsonable_encoder
from langgraph.types import Command
from pydantic import BaseModel, Field, JsonValue

from checkpoints.threads import WaitingThread, list_waiting_threads
from core.errors import NotFound, WorkflowFailed
from core.logging import get_logger
from graphs.registry import REGISTRY
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes.dependencies import OpenService, Requester
from service.routes.workflow_models import WorkflowReport
from service.runs.output import PendingInterrupt, format_approval_id, parse_approval_id
from service.runs.preconditions import INTERRUPT_ID
from service.runs.request import CompiledGraph, RunRequest, build_run_request
from service.workflows.graphs import WORKFLOW, list_questions

log = get_logger(__name__)

# The graphs whose questions are for a person of the company, and the workflows, which have graphs of their
# own. Questions to a customer are not decided here.
LISTED_GRAPHS = [*(spec.name for spec in REGISTRY.values() if spec.asks == "company"), WORKFLOW]
# Threads that are read at once, and how often at most for one answer: most may wait for a time or a signal.
_PAGE = 100
_MAX_PAGES = 10


class Approval(PendingInterrupt):
    """A pending question."""

    id: str = Field(description="Names the question at /v1/approvals/{id}")
    thread_id: str = Field(description="The thread that waits")
    graph: str = Field(description="The graph that asks")
    since: str = Field(description="When the step that asks began, ISO 8601")


class Approvals(BaseModel):
    """Pending questions, longest waiting first."""

    approvals: list[Approval]
    next: str | None = Field(description="Give it as after= for the next page; null: this is the last page")


class Decided(BaseModel):
    """The run's output after the decision."""

    id: str
    thread_id: str
    output: dict[str, JsonValue] = Field(description="The run's output, as the graph's invoke gives it")


def approvals_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/approvals", tags=["approvals"])

    @router.get("")
    async def list_approvals(
        service: OpenService,
        requester: Requester,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        after: Annotated[str, Query(max_length=100, description="The previous page's next")] = "",
    ) -> Approvals:
        """List the questions that wait for a person; the questions of one thread are on one page."""
        return await _list_pending(service, requester, limit=limit, after=after)

    @router.post("/{approval_id}")
    async def decide(
        approval_id: str,
        decision: Annotated[JsonValue, Body(description="As the question's response_schema says")],
        service: OpenService,
        requester: Requester,
    ) -> Decided:
        """Answer a question; the run continues to its end or its next question.

        The run does not stop when the caller disconnects.
        """
        interrupt_id, thread_id = parse_approval_id(approval_id)
        if not INTERRUPT_ID.fullmatch(interrupt_id):
            raise _no_such_approval(approval_id)
        try:
            owner = await service.thread_owners.get_owner(requester, thread_id)
        except NotFound:
            raise _no_such_approval(approval_id) from None
        if owner.graph == WORKFLOW:
            view = await service.workflows.decide(requester, thread_id, interrupt_id, decision)
            report = jsonable_encoder(WorkflowReport.build_from_view(view))
            return Decided(id=approval_id, thread_id=thread_id, output=report)
        if owner.graph is None or owner.graph not in LISTED_GRAPHS:
            raise _no_such_approval(approval_id)
        run = _build_run(service, requester, owner.graph, thread_id, Command(resume={interrupt_id: decision}))
        result = await asyncio.shield(asyncio.create_task(service.runs.run_to_end(run)))
        output = jsonable_encoder(result.to_output(thread_id, service.model))
        return Decided(id=approval_id, thread_id=thread_id, output=output)

    return router


def _no_such_approval(approval_id: str) -> NotFound:
    return NotFound(
        f"there is no approval {approval_id[:300]!r}; GET /v1/approvals lists what waits, with ids",
        details={"id": approval_id[:300]},
    )


def _build_run(
    service: Service, identity: Identity, graph: str, thread_id: str, decision: Command[None]
) -> RunRequest:
    spec = REGISTRY[graph]
    return build_run_request(
        service.graphs[graph],
        spec,
        decision,
        identity=identity,
        thread_id=thread_id,
        on_finish=service.session_runs.close_on_finish(spec, identity, thread_id),
    )


async def _list_pending(service: Service, identity: Identity, *, limit: int, after: str) -> Approvals:
    """Read on until there are enough questions, no more threads, or enough threads were looked at."""
    approvals: list[Approval] = []
    for _ in range(_MAX_PAGES):
        page = await list_waiting_threads(
            service.pool, identity.tenant, LISTED_GRAPHS, limit=_PAGE, after=after
        )
        for waiting in page:
            after = waiting.checkpoint_id
            approvals += await _list_questions(service, identity, waiting)
            if len(approvals) >= limit:
                return Approvals(approvals=approvals, next=after)
        if len(page) < _PAGE:
            return Approvals(approvals=approvals, next=None)
    return Approvals(approvals=approvals, next=after)


async def _list_questions(service: Service, identity: Identity, waiting: WaitingThread) -> list[Approval]:
    graph = await _get_graph(service, identity, waiting)
    if graph is None:
        return []
    return [
        Approval(
            **{**pending, "id": format_approval_id(pending["id"], waiting.thread_id)},
            thread_id=waiting.thread_id,
            graph=waiting.graph,
            since=waiting.since,
        )
        for pending in await list_questions(graph, waiting.thread_id)
    ]


async def _get_graph(service: Service, identity: Identity, waiting: WaitingThread) -> CompiledGraph | None:
    if waiting.graph != WORKFLOW:
        return service.graphs[waiting.graph]
    try:
        return await service.workflows.find_open_graph(identity, waiting.thread_id)
    except WorkflowFailed as error:
        # Nobody can decide it, but the other questions are listed all the same.
        log.warning("approval_not_listed", workflow_id=waiting.thread_id, reason=error.message)
        return None
