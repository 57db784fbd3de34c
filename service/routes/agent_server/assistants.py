"""``/assistants``: configured variants of the graphs, with versions."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from core.context import act_as
from service.agent_server.drawing import describe_schemas, describe_subgraphs, draw
from service.agent_server.run_builder import check_context, require_scope
from service.auth.principal import Identity, build_actor
from service.lifespan import Service
from service.routes.agent_server.http import (
    MAX_LIMIT,
    AgentServerRoute,
    AssistantId,
    JsonResponse,
    page_response,
    select_fields,
)
from service.routes.agent_server.models import (
    AssistantCount,
    AssistantCreate,
    AssistantPatch,
    AssistantSearch,
    VersionChoice,
    VersionSearch,
)
from service.routes.agent_server.threads import erase
from service.routes.dependencies import OpenService, Requester

FIELDS: Final = (
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "config",
    "context",
    "metadata",
    "version",
    "created_at",
    "updated_at",
)
_RESERVED_METADATA: Final = frozenset({"created_by"})


def assistants_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/assistants", tags=["assistants"], route_class=AgentServerRoute)

    @router.post("")
    async def create_assistant(body: AssistantCreate, service: OpenService, requester: Requester) -> Response:
        """Create an assistant."""
        fields = _read_fields(body, service, requester, graph=body.graph_id)
        assistant = await service.assistants.create(
            requester.tenant,
            fields,
            assistant_id=body.assistant_id,
            is_found_enough=body.if_exists == "do_nothing",
        )
        return JsonResponse(assistant)

    @router.post("/search")
    async def search_assistants(
        body: AssistantSearch,
        service: OpenService,
        requester: Requester,
        response_format: Annotated[Literal["array", "object"], Query()] = "array",
    ) -> Response:
        """List assistants, among them the one that each graph has (``metadata.created_by`` is ``system``)."""
        rows = await service.assistants.search(
            requester.tenant,
            filters=body.model_dump(include={"metadata", "graph_id", "name"}),
            sort_by=body.sort_by,
            descending=body.sort_order == "desc",
            limit=body.limit,
            offset=body.offset,
        )
        shown = [select_fields(row, body.select, FIELDS) for row in rows]
        if response_format == "object":
            following = str(body.offset + body.limit) if len(rows) == body.limit else None
            return JsonResponse({"assistants": shown, "next": following})
        return page_response(shown, limit=body.limit, offset=body.offset)

    @router.post("/count")
    async def count_assistants(body: AssistantCount, service: OpenService, requester: Requester) -> int:
        """Count assistants."""
        return await service.assistants.count(requester.tenant, body.model_dump())

    _add_routes_of_one(router)
    _add_drawing_routes(router)
    return router


def _add_drawing_routes(router: APIRouter) -> None:
    @router.get("/{assistant_id}/graph")
    async def draw_graph(
        assistant_id: Annotated[str, Path(description="The assistant, or the name of a graph")],
        service: OpenService,
        requester: Requester,
        *,
        xray: Annotated[
            bool | Annotated[int, Field(ge=0, le=20)], Query(description="Levels of subgraphs")
        ] = False,
    ) -> Response:
        """Return the graph's nodes, each with a line on what it does, and its edges."""
        assistant = await service.assistants.resolve(requester.tenant, assistant_id)
        return JsonResponse(await draw(service.catalogue.find(assistant["graph_id"]), depth=xray))

    @router.get("/{assistant_id}/schemas")
    async def get_schemas(assistant_id: AssistantId, service: OpenService, requester: Requester) -> Response:
        """Return the schemas of the graph's input, output, state and context."""
        assistant = await service.assistants.get(requester.tenant, assistant_id)
        return JsonResponse(await describe_schemas(service.catalogue.find(assistant["graph_id"])))

    @router.get("/{assistant_id}/subgraphs")
    async def get_subgraphs(
        assistant_id: AssistantId, service: OpenService, requester: Requester, *, recurse: bool = False
    ) -> Response:
        """Return the schemas of the graph's subgraphs."""
        assistant = await service.assistants.get(requester.tenant, assistant_id)
        graph = service.catalogue.find(assistant["graph_id"])
        return JsonResponse(await describe_subgraphs(graph, None, recurse=recurse))

    @router.get("/{assistant_id}/subgraphs/{namespace}")
    async def get_subgraph(
        assistant_id: AssistantId,
        namespace: Annotated[str, Path(max_length=500)],
        service: OpenService,
        requester: Requester,
        *,
        recurse: bool = False,
    ) -> Response:
        """Return the schemas of one subgraph."""
        assistant = await service.assistants.get(requester.tenant, assistant_id)
        graph = service.catalogue.find(assistant["graph_id"])
        return JsonResponse(await describe_subgraphs(graph, namespace, recurse=recurse))


def _add_routes_of_one(router: APIRouter) -> None:
    @router.get("/{assistant_id}")
    async def get_assistant(
        assistant_id: AssistantId, service: OpenService, requester: Requester
    ) -> Response:
        """Return an assistant."""
        return JsonResponse(await service.assistants.get(requester.tenant, assistant_id))

    @router.patch("/{assistant_id}")
    async def update_assistant(
        assistant_id: AssistantId, body: AssistantPatch, service: OpenService, requester: Requester
    ) -> Response:
        """Change an assistant: a new version of it, which runs use from now on. Metadata is merged."""
        known = await service.assistants.get(requester.tenant, assistant_id)
        fields = _read_fields(body, service, requester, graph=body.graph_id or known["graph_id"])
        return JsonResponse(await service.assistants.update(requester.tenant, assistant_id, fields))

    @router.delete("/{assistant_id}", status_code=204)
    async def delete_assistant(
        assistant_id: AssistantId,
        service: OpenService,
        requester: Requester,
        *,
        delete_threads: Annotated[
            bool, Query(description="Erase its threads; needs the scope erasure")
        ] = False,
    ) -> None:
        """Delete an assistant with its versions; its runs in progress stop at their next step."""
        if delete_threads:
            require_scope(requester, "erasure")
        busy = await service.assistants.list_busy_threads(requester.tenant, assistant_id)
        await service.assistants.delete(requester.tenant, assistant_id)
        act_as(build_actor(requester))
        for thread_id in busy:
            await service.runs.cancel_thread(requester.tenant, thread_id)
        while delete_threads and (
            found := await service.assistants.list_threads(requester.tenant, assistant_id, limit=MAX_LIMIT)
        ):
            for thread_id in found:
                await erase(service, requester, thread_id)

    @router.post("/{assistant_id}/versions")
    async def list_versions(
        assistant_id: AssistantId, body: VersionSearch, service: OpenService, requester: Requester
    ) -> Response:
        """List an assistant's versions, the newest first."""
        rows = await service.assistants.list_versions(
            requester.tenant, assistant_id, metadata=body.metadata, limit=body.limit, offset=body.offset
        )
        return page_response(rows, limit=body.limit, offset=body.offset)

    @router.post("/{assistant_id}/latest")
    async def choose_version(
        assistant_id: AssistantId, body: VersionChoice, service: OpenService, requester: Requester
    ) -> Response:
        """Have runs use an earlier version."""
        return JsonResponse(
            await service.assistants.set_version(requester.tenant, assistant_id, body.version)
        )


def _read_fields(
    body: AssistantCreate | AssistantPatch, service: Service, identity: Identity, *, graph: str
) -> dict[str, Any]:
    """Return the fields that a body sets; the context is checked like that of a run."""
    fields: dict[str, Any] = body.model_dump(
        include={"graph_id", "name", "description", "context", "metadata"}
    )
    fields["config"] = body.config.model_dump(exclude_defaults=True) if body.config else None
    known = service.catalogue.get(graph)
    if known and known.spec:
        configurable = body.config.configurable if body.config else {}
        check_context({**configurable, **(body.context or {})}, identity)
    if fields["metadata"]:
        fields["metadata"] = {
            name: value for name, value in fields["metadata"].items() if name not in _RESERVED_METADATA
        }
    return fields
