"""What waits for a person in workflows: their threads are gone on with by the keeper, not by a request."""

from typing import Any

from fastapi.encoders import jsonable_encoder
from pydantic import JsonValue

from core.errors import NotFound, NothingToResume
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes.workflow_view import RunView
from service.runs.compiled import CompiledGraph
from service.runs.decisions import is_for_others
from service.runs.output import interrupt_json


async def open_graph(service: Service, identity: Identity, run_id: str) -> CompiledGraph | None:
    """The graph of a workflow that is not over; None: it is, so that nobody need decide anything."""
    run = await service.workflows.store.get(identity.tenant, run_id)
    return None if run is None or run.ended else service.workflows.graphs.of(run.definition)


async def for_a_person(graph: CompiledGraph, thread_id: str) -> list[dict[str, Any]]:
    """The pending questions of a thread that somebody of the company must decide."""
    state = await graph.aget_state({"configurable": {"thread_id": thread_id}})
    return [interrupt_json(pending) for pending in state.interrupts if not is_for_others(pending.value)]


async def decide_workflow(
    service: Service, identity: Identity, run_id: str, interrupt_id: str, decision: JsonValue
) -> dict[str, JsonValue]:
    """Answer a workflow's question; it goes on to its end or its next wait.

    Returns:
        The run's report.

    Raises:
        NothingToResume: It does not ask this, or is over.
    """
    graph = await open_graph(service, identity, run_id)
    asked = await for_a_person(graph, run_id) if graph else []
    if interrupt_id not in {one["id"] for one in asked}:
        raise NothingToResume("the decision was given already, or the workflow is over")
    run = await service.workflows.keeper.answer(identity, run_id, interrupt_id, decision)
    if run is None:
        raise NotFound(f"workflow {run_id!r} was erased")
    report = (await RunView.of(service.workflows.graphs, run)).report()
    encoded: dict[str, JsonValue] = jsonable_encoder(report)
    return encoded
