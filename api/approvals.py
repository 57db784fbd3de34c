"""``/v1/approvals``: what waits for a person, and their decisions.

There is no table of approvals: a question is pending when its thread's latest checkpoint says so, which a
restart does not change, and which cannot disagree with the run.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.encoders import jsonable_encoder
from langgraph.types import Command
from pydantic import BaseModel, Field, JsonValue

from api.compiled import CompiledGraph
from api.dependencies import OpenService, Requester
from api.identity import Identity
from api.repetition import MESSAGE_KEY
from api.run_output import PendingInterrupt, finished, interrupt_json
from api.run_requests import run_request
from api.runs import RunRequest
from api.service import Service
from checkpoints.threads import thread_owner, waiting_threads
from core.errors import NotFound
from graphs.registry import REGISTRY

# Between the interrupt's id, which is hexadecimal, and the thread's.
_SEPARATOR = "."
# The graphs whose questions are for a person of the company; those to a customer are not decided here.
ASKING = [spec.name for spec in REGISTRY.values() if spec.asks == "company"]


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
        found = await waiting_threads(service.pool, requester.tenant, ASKING, limit=limit, offset=offset)
        return Approvals(
            approvals=[
                Approval(
                    **{**pending, "id": f"{pending['id']}{_SEPARATOR}{waiting.thread_id}"},
                    thread_id=waiting.thread_id,
                    graph=waiting.graph,
                    since=waiting.since,
                )
                for waiting in found
                for pending in await _pending(service.graphs[waiting.graph], waiting.thread_id)
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
        run = await _resuming(service, requester, approval_id, decision)
        result = await asyncio.shield(asyncio.create_task(finished(service.runs, run)))
        output = result.output(run.thread_id, service.model)
        return Decided(id=approval_id, thread_id=run.thread_id, output=jsonable_encoder(output))

    return router


async def _pending(graph: CompiledGraph, thread_id: str) -> list[dict[str, Any]]:
    state = await graph.aget_state({"configurable": {"thread_id": thread_id}})
    return [interrupt_json(pending) for pending in state.interrupts if not _is_for_customer(pending.value)]


def _is_for_customer(asked: Any) -> bool:
    return isinstance(asked, dict) and asked.get("kind") == "question"


async def _resuming(
    service: Service, identity: Identity, approval_id: str, decision: JsonValue
) -> RunRequest:
    interrupt_id, _, thread_id = approval_id.partition(_SEPARATOR)
    owner = await thread_owner(service.pool, thread_id) if thread_id else None
    spec = REGISTRY.get(owner.graph or "") if owner and owner.tenant == identity.tenant else None
    if spec is None or spec.name not in ASKING:
        raise NotFound(f"there is no approval {approval_id!r}", details={"id": approval_id})
    state = await service.graphs[spec.name].aget_state({"configurable": {"thread_id": thread_id}})
    message_id = (state.metadata or {}).get(MESSAGE_KEY)
    return run_request(
        service,
        spec,
        Command(resume={interrupt_id: decision}),
        identity=identity,
        thread_id=thread_id,
        # It is still that message's run.
        metadata={MESSAGE_KEY: message_id} if message_id else None,
    )
