"""``/v1/approvals``: what waits for a person, and their decisions.

There is no table of approvals: a question is pending when its thread's latest checkpoint says so, which a
restart does not change, and which cannot disagree with the run.
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
from graphs.spec import GraphSpec
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes.approval_ids import approval_id as question_id
from service.routes.dependencies import OpenService, Requester
from service.routes.workflow_models import WorkflowReport
from service.runs.output import PendingInterrupt, finished, parse_approval_id
from service.runs.request import CompiledGraph, RunRequest, build_run_request
from service.workflows.graphs import WORKFLOW, list_questions

log = get_logger(__name__)

# The graphs whose questions are for a person of the company; those to a customer are not decided here.
ASKING = [spec.name for spec in REGISTRY.values() if spec.asks == "company"]
# And the workflows, which have graphs of their own.
LISTED = [*ASKING, WORKFLOW]
# Threads that one answer looks through, and how many at once: most may wait for a time or a signal.
_MOST_READ = 1_000
_PAGE = 100


class Approval(PendingInterrupt):
    """A pending question."""

    id: str = Field(description="Names the question at /v1/approvals/{id}")
    thread_id: str = Field(description="The thread that waits")
    graph: str = Field(description="The graph that asks")
    since: str = Field(description="When the step that asks began, ISO 8601")


class Approvals(BaseModel):
    """Pending questions, those that wait longest first."""

    approvals: list[Approval]
    next_offset: int | None = Field(None, description="Where the next page begins; null: there is none")


class Decided(BaseModel):
    """What became of the run after the decision."""

    id: str
    thread_id: str
    output: dict[str, JsonValue] = Field(description="The run's output, as the graph's invoke gives it")


def approvals_router() -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1/approvals", tags=["approvals"])

    @router.get("")
    async def list_approvals(
        service: OpenService,
        requester: Requester,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Approvals:
        """What waits for a person, ``limit`` questions of which those of one thread are not torn apart.

        ``offset`` counts threads: the next page begins at ``next_offset``.
        """
        return await _pending(service, requester, limit=limit, offset=offset)

    @router.post("/{approval_id}")
    async def decide(
        approval_id: str,
        decision: Annotated[JsonValue, Body(description="As the question's response_schema says")],
        service: OpenService,
        requester: Requester,
    ) -> Decided:
        """Answer a question; the run goes on, to its end or its next question.

        The run does not stop when the one who decided goes away.
        """
        graph = await _asking(service, requester, approval_id)
        if graph == WORKFLOW:
            interrupt_id, thread_id = parse_approval_id(approval_id)
            view = await service.workflows.decide(requester, thread_id, interrupt_id, decision)
            report = jsonable_encoder(WorkflowReport.build_from_view(view))
            return Decided(id=approval_id, thread_id=thread_id, output=report)
        run = await _resuming(service, REGISTRY[graph], requester, approval_id, decision)
        result = await asyncio.shield(asyncio.create_task(finished(service.runs, run)))
        output = result.output(run.thread_id, service.model)
        return Decided(id=approval_id, thread_id=run.thread_id, output=jsonable_encoder(output))

    return router


async def _pending(service: Service, identity: Identity, *, limit: int, offset: int) -> Approvals:
    """Read on until there are enough questions, no threads any more, or enough were looked at."""
    found: list[Approval] = []
    last = offset + _MOST_READ
    while offset < last:
        page = await list_waiting_threads(service.pool, identity.tenant, LISTED, limit=_PAGE, offset=offset)
        for waiting in page:
            offset += 1
            found += await _questions(service, identity, waiting)
            if len(found) >= limit:
                return Approvals(approvals=found, next_offset=offset)
        if len(page) < _PAGE:
            return Approvals(approvals=found)
    return Approvals(approvals=found, next_offset=offset)


async def _questions(service: Service, identity: Identity, waiting: WaitingThread) -> list[Approval]:
    graph = await _graph(service, identity, waiting)
    if graph is None:
        return []
    return [
        Approval(
            **{**pending, "id": question_id(pending["id"], waiting.thread_id)},
            thread_id=waiting.thread_id,
            graph=waiting.graph,
            since=waiting.since,
        )
        for pending in await list_questions(graph, waiting.thread_id)
    ]


async def _graph(service: Service, identity: Identity, waiting: WaitingThread) -> CompiledGraph | None:
    if waiting.graph != WORKFLOW:
        return service.graphs[waiting.graph]
    try:
        return await service.workflows.find_open_graph(identity, waiting.thread_id)
    except WorkflowFailed as fault:
        # Nobody can decide it, and the others' questions are listed all the same.
        log.warning("approval_not_listed", workflow_id=waiting.thread_id, reason=fault.message)
        return None


async def _asking(service: Service, identity: Identity, named: str) -> str:
    """The graph whose question it is."""
    _, thread_id = parse_approval_id(named)
    owner = await service.thread_owners.own(identity, thread_id)
    if owner.graph not in LISTED:
        raise NotFound(f"there is no approval {named!r}", details={"id": named})
    return owner.graph


async def _resuming(
    service: Service, spec: GraphSpec, identity: Identity, named: str, decision: JsonValue
) -> RunRequest:
    interrupt_id, thread_id = parse_approval_id(named)
    return build_run_request(
        service,
        spec,
        Command(resume={interrupt_id: decision}),
        identity=identity,
        thread_id=thread_id,
    )
