"""``/threads/{thread_id}/state`` and ``/history``: read, change and fork states; copy and prune threads."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

from fastapi import APIRouter, Query, Response

from core.errors import InvalidRequest, NotFound
from service.agent_server.run_builder import require_state_scope
from service.agent_server.state import State, StateChange, empty_state, list_states, load_state
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes.agent_server.http import MAX_LIMIT, AgentServerRoute, JsonResponse, ThreadId
from service.routes.agent_server.models import HistorySearch, Prune, StateRead, StateWrite
from service.routes.agent_server.state_changes import find_graph, write_state_of
from service.routes.agent_server.threads import erase, show_thread
from service.routes.dependencies import OpenService, Requester

FIELDS: Final = (
    "values",
    "next",
    "tasks",
    "metadata",
    "created_at",
    "checkpoint",
    "parent_checkpoint",
    "interrupts",
    "checkpoint_id",
    "parent_checkpoint_id",
)

Select = Annotated[list[str] | None, Query(description="Fields of the state, or values.<name>")]


def thread_state_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/threads", tags=["threads"], route_class=AgentServerRoute)

    @router.get("/{thread_id}/state")
    async def get_state(
        thread_id: ThreadId,
        service: OpenService,
        requester: Requester,
        *,
        subgraphs: bool = False,
        select: Select = None,
    ) -> Response:
        """Return a thread's state."""
        return await _read(service, requester, thread_id, {}, subgraphs=subgraphs, select=select)

    @router.get("/{thread_id}/state/{checkpoint_id}")
    async def get_state_at(
        thread_id: ThreadId,
        checkpoint_id: UUID,
        service: OpenService,
        requester: Requester,
        *,
        subgraphs: bool = False,
        select: Select = None,
    ) -> Response:
        """Return a thread's state at a checkpoint; one that there is not has an empty state."""
        checkpoint = {"checkpoint_id": str(checkpoint_id)}
        return await _read(service, requester, thread_id, checkpoint, subgraphs=subgraphs, select=select)

    @router.post("/{thread_id}/state/checkpoint")
    async def read_state_at(
        thread_id: ThreadId, body: StateRead, service: OpenService, requester: Requester
    ) -> Response:
        """Return a thread's state at a checkpoint, of a subgraph too (`checkpoint_ns`)."""
        checkpoint = body.checkpoint.model_dump(exclude_none=True)
        return await _read(
            service, requester, thread_id, checkpoint, subgraphs=body.subgraphs, select=body.select
        )

    @router.post("/{thread_id}/state")
    async def write_state(
        thread_id: ThreadId, body: StateWrite, service: OpenService, requester: Requester
    ) -> Response:
        """Write values as if a node had returned them; ``__copy__`` as the node forks at a checkpoint.

        Needs the scope ``approvals`` too, because the state can stand in for a decision. 409 while a run is
        in progress or waits.
        """
        require_state_scope(requester)
        checkpoint = body.checkpoint.model_dump(exclude_none=True) if body.checkpoint else {}
        if body.checkpoint_id:
            checkpoint["checkpoint_id"] = body.checkpoint_id
        changes = [[StateChange(body.values, body.as_node)]]
        written = await write_state_of(service, requester, str(thread_id), changes, checkpoint)
        place = {"checkpoint_ns": "", "checkpoint_map": None, **written}
        return JsonResponse(
            {"checkpoint": place, "configurable": place, "checkpoint_id": place.get("checkpoint_id")}
        )

    @router.get("/{thread_id}/history")
    async def list_history(
        thread_id: ThreadId,
        service: OpenService,
        requester: Requester,
        *,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 10,
        before: str | None = None,
        select: Select = None,
    ) -> Response:
        """List a thread's states, the latest first."""
        search = HistorySearch(limit=limit, before=before, select=select)
        return await _list(service, requester, thread_id, search)

    @router.post("/{thread_id}/history")
    async def search_history(
        thread_id: ThreadId, body: HistorySearch, service: OpenService, requester: Requester
    ) -> Response:
        """List a thread's states, the latest first, of a subgraph too."""
        return await _list(service, requester, thread_id, body)

    _add_thread_routes(router)
    return router


def _add_thread_routes(router: APIRouter) -> None:
    @router.post("/{thread_id}/copy")
    async def copy_thread(thread_id: ThreadId, service: OpenService, requester: Requester) -> Response:
        """Copy a thread with its state and history, but without its runs."""
        source, target = str(thread_id), str(uuid4())
        async with service.runs.hold_idle_thread(requester, source):
            await service.threads.copy(requester, source, target)
        return JsonResponse(
            await show_thread(service, await service.threads.get(requester.tenant, UUID(target)))
        )

    @router.post("/prune")
    async def prune_threads(body: Prune, service: OpenService, requester: Requester) -> dict[str, int]:
        """Erase threads, or all of their history but the latest state. Those there are not are left out."""
        pruned = 0
        for thread_id in map(str, body.thread_ids):
            try:
                if body.strategy == "delete":
                    await erase(service, requester, thread_id)
                else:
                    async with service.runs.hold_idle_thread(requester, thread_id):
                        await service.threads.prune(thread_id)
                        service.saver.forget(thread_id)
            except NotFound:
                continue
            pruned += 1
        return {"pruned_count": pruned}


async def _read(
    service: Service,
    identity: Identity,
    thread_id: UUID,
    checkpoint: Mapping[str, Any],
    *,
    subgraphs: bool,
    select: Iterable[str] | None,
) -> Response:
    graph = await find_graph(service, identity, thread_id)
    state = (
        await load_state(graph, str(thread_id), checkpoint, subgraphs=subgraphs)
        if graph
        else empty_state(str(thread_id), checkpoint.get("checkpoint_id"))
    )
    return JsonResponse(_select(state, select))


async def _list(service: Service, identity: Identity, thread_id: UUID, search: HistorySearch) -> Response:
    graph = await find_graph(service, identity, thread_id)
    if graph is None:
        return JsonResponse([])
    states = await list_states(
        graph,
        str(thread_id),
        search.checkpoint.model_dump(exclude_none=True) if search.checkpoint else {},
        before=search.before_id,
        metadata=search.metadata,
        limit=search.limit,
    )
    return JsonResponse([_select(state, search.select) for state in states])


def _select(state: State, select: Iterable[str] | None) -> State:
    """Return some fields of a state, or all; ``values.<name>`` is one of the values."""
    if select is None:
        return state
    chosen: State = {}
    for field in select:
        name, _, key = field.partition(".")
        if name not in FIELDS or (key and name != "values"):
            raise InvalidRequest(f"select: there is no field {field[:100]!r}; there are {', '.join(FIELDS)}")
        if key:
            chosen.setdefault("values", {})
            if key in state["values"]:
                chosen["values"][key] = state["values"][key]
        else:
            chosen[name] = state[name]
    return chosen
