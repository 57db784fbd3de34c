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

from api.approval_ids import approval_id as question_id
from api.approval_ids import parts
from api.compiled import CompiledGraph
from api.dependencies import OpenService, Requester
from api.identity import Identity
from api.run import RunRequest
from api.run_output import PendingInterrupt, finished
from api.run_requests import run_request
from api.service import Service
from api.workflow_approvals import decide_workflow, for_a_person, open_graph
from api.workflow_runs import WORKFLOW
from checkpoints.threads import WaitingThread, waiting_threads
from core.errors import NotFound
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec

# The graphs whose questions are for a person of the company; those to a customer are not decided here.
ASKING = [spec.name for spec in REGISTRY.values() if spec.asks == "company"]
# And the workflows, which have graphs of their own.
LISTED = [*ASKING, WORKFLOW]


class Approval(PendingInterrupt):
    """A pending question."""

    id: str = Field(description="Names the question at /v1/approvals/{id}")
    thread_id: str = Field(description="The thread that waits")
    graph: str = Field(description="The graph that asks")
    since: str = Field(description="When the step that asks began, ISO 8601")


class Approvals(BaseModel):
    """Pending questions, those that wait longest first."""

    approvals: list[Approval]


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
        """What waits for a person. ``limit`` and ``offset`` count threads."""
        found = await waiting_threads(service.pool, requester.tenant, LISTED, limit=limit, offset=offset)
        return Approvals(
            approvals=[
                Approval(
                    **{**pending, "id": question_id(pending["id"], waiting.thread_id)},
                    thread_id=waiting.thread_id,
                    graph=waiting.graph,
                    since=waiting.since,
                )
                for waiting in found
                if (graph := await _graph(service, requester, waiting))
                for pending in await for_a_person(graph, waiting.thread_id)
            ]
        )

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
            interrupt_id, thread_id = parts(approval_id)
            report = await decide_workflow(service, requester, thread_id, interrupt_id, decision)
            return Decided(id=approval_id, thread_id=thread_id, output=report)
        run = await _resuming(service, REGISTRY[graph], requester, approval_id, decision)
        result = await asyncio.shield(asyncio.create_task(finished(service.runs, run)))
        output = result.output(run.thread_id, service.model)
        return Decided(id=approval_id, thread_id=run.thread_id, output=jsonable_encoder(output))

    return router


async def _graph(service: Service, identity: Identity, waiting: WaitingThread) -> CompiledGraph | None:
    if waiting.graph == WORKFLOW:
        return await open_graph(service, identity, waiting.thread_id)
    return service.graphs[waiting.graph]


async def _asking(service: Service, identity: Identity, named: str) -> str:
    """The graph whose question it is."""
    _, thread_id = parts(named)
    owner = await service.ownership.own(identity, thread_id)
    if owner.graph not in LISTED:
        raise NotFound(f"there is no approval {named!r}", details={"id": named})
    return owner.graph


async def _resuming(
    service: Service, spec: GraphSpec, identity: Identity, named: str, decision: JsonValue
) -> RunRequest:
    interrupt_id, thread_id = parts(named)
    return run_request(
        service,
        spec,
        Command(resume={interrupt_id: decision}),
        identity=identity,
        thread_id=thread_id,
    )
