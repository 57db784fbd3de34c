"""``/store``: what graphs and clients keep beside threads, by namespace and key."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field, JsonValue

from service.agent_server.items import ItemStore, Namespace
from service.agent_server.note_items import NoteItems, is_of_memory
from service.agent_server.run_builder import require_scope
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes.agent_server.http import MAX_LIMIT, AgentServerRoute, JsonResponse
from service.routes.agent_server.models import Body, Page
from service.routes.dependencies import OpenService, Requester

Label = Annotated[str, Field(max_length=500)]
Labels = Annotated[list[Label], Field(max_length=20)]
Key = Annotated[str, Field(min_length=1, max_length=500)]


class ItemPut(Body):
    """An item to store."""

    namespace: Labels
    key: Key
    value: dict[str, JsonValue]
    index: bool | list[str] = Field(default=True, description="Fields that a search by meaning reads")
    ttl: float | None = Field(None, gt=0, le=10**9, description="Minutes until it is deleted")


class ItemDelete(Body):
    """An item to delete."""

    namespace: Labels
    key: Key


class ItemSearch(Page):
    """Which items."""

    namespace_prefix: Labels = Field(default_factory=list)
    filter: dict[str, JsonValue] = Field(default_factory=dict)
    query: str | None = Field(None, max_length=10_000)
    refresh_ttl: bool = True


class NamespaceSearch(Page):
    """Which namespaces."""

    prefix: Labels | None = None
    suffix: Labels | None = None
    max_depth: int | None = Field(None, ge=1, le=100)
    limit: int = Field(100, ge=1, le=MAX_LIMIT)


def _choose_items(
    service: Service, identity: Identity, namespace: Namespace | None, *, writes: bool = False
) -> ItemStore | NoteItems:
    """Return where a namespace's items are: in the store, or in the memory, which has scopes of its own.

    Raises:
        Forbidden: The caller has not the memory's scope.
    """
    if not is_of_memory(namespace):
        return service.items
    require_scope(identity, "memory:write" if writes else "memory:read")
    return service.note_items


def store_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/store", tags=["store"], route_class=AgentServerRoute)

    @router.put("/items", status_code=204)
    async def put_item(body: ItemPut, service: OpenService, requester: Requester) -> None:
        """Store an item in place of the one with its namespace and key."""
        items = _choose_items(service, requester, body.namespace, writes=True)
        await items.put(
            requester.tenant, body.namespace, body.key, body.value, index=body.index, ttl=body.ttl
        )

    @router.get("/items")
    async def get_item(
        service: OpenService,
        requester: Requester,
        *,
        namespace: Annotated[str, Query(max_length=10_000, description="Labels, with dots between")],
        key: Annotated[str, Query(max_length=500)],
        refresh_ttl: bool = True,
    ) -> Response:
        """Return an item; null where there is none."""
        labels = namespace.split(".")
        items = _choose_items(service, requester, labels)
        return JsonResponse(await items.get(requester.tenant, labels, key, refresh=refresh_ttl))

    @router.delete("/items", status_code=204)
    async def delete_item(body: ItemDelete, service: OpenService, requester: Requester) -> None:
        """Delete an item, if there is one."""
        items = _choose_items(service, requester, body.namespace, writes=True)
        await items.delete(requester.tenant, body.namespace, body.key)

    @router.post("/items/search")
    async def search_items(body: ItemSearch, service: OpenService, requester: Requester) -> Response:
        """List the items below a namespace, by their meaning if there is a query."""
        items = _choose_items(service, requester, body.namespace_prefix)
        found: list[dict[str, Any]] = await items.search(
            requester.tenant,
            body.namespace_prefix,
            filter=body.filter,
            query=body.query or "",
            limit=body.limit,
            offset=body.offset,
            refresh=body.refresh_ttl,
        )
        return JsonResponse({"items": found})

    @router.post("/namespaces")
    async def list_namespaces(body: NamespaceSearch, service: OpenService, requester: Requester) -> Response:
        """List the namespaces that hold items."""
        found = await _choose_items(service, requester, body.prefix).list_namespaces(
            requester.tenant,
            prefix=body.prefix,
            suffix=body.suffix,
            max_depth=body.max_depth,
            limit=body.limit,
            offset=body.offset,
        )
        return JsonResponse({"namespaces": found})

    return router
