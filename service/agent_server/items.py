"""The store: what graphs and clients keep beside threads, by namespace and key, of one tenant each."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from core.context import current_actor
from core.embeddings import Embedder
from core.errors import InvalidRequest
from core.postgres import Pool
from service.agent_server.assistants import QUERIES

Namespace: TypeAlias = Sequence[str]

# The first label of the namespaces in which the store shows the memory's notes.
MEMORY_ROOT: Final = "contact_memory"
# Of a namespace with more items, a search by meaning compares the newest.
MAX_COMPARED: Final = 5_000
MAX_DEPTH: Final = 100
_SWEEP: Final = 1_000
_INDEXED_CHARACTERS: Final = 4_000


class ItemStore:
    """Items in the service's Postgres.

    Args:
        pool: The service's pool.
        embedder: Embeds items and queries.
    """

    def __init__(self, pool: Pool, embedder: Embedder) -> None:
        self._pool = pool
        self._embedder = embedder

    async def put(
        self,
        tenant: str,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        *,
        index: Sequence[str] | bool = True,
        ttl: float | None = None,
    ) -> None:
        """Store an item in place of the one with its namespace and key.

        Args:
            tenant: Whose it is.
            namespace: Where; see :func:`check_namespace`.
            key: Its name.
            value: What to store.
            index: Fields whose texts a search by meaning reads; ``True``: all, ``False``: none.
            ttl: Minutes until it is deleted; ``None``: it stays.

        Raises:
            InvalidRequest: The namespace is not valid.
            EmbeddingError: It cannot be indexed at the moment.
        """
        check_namespace(namespace)
        text = "" if index is False else _read_text(value, None if index is True else index)
        embedding = (await self._embedder.embed_documents([text]))[0] if text else None
        await self._execute(
            "put_item",
            {
                "tenant": tenant,
                "namespace": list(namespace),
                "key": key,
                "value": Jsonb(value),
                "embedding": embedding,
                "model": self._embedder.model if embedding else None,
                "ttl": ttl,
            },
        )

    async def get(
        self, tenant: str, namespace: Namespace, key: str, *, refresh: bool = True
    ) -> DictRow | None:
        """Return an item (``namespace``, ``key``, ``value``, times), if there is one."""
        values = {"tenant": tenant, "namespace": list(namespace), "key": key}
        rows = await self._fetch("get_item", values)
        if refresh:
            await self._refresh(tenant, rows)
        return rows[0] if rows else None

    async def delete(self, tenant: str, namespace: Namespace, key: str) -> None:
        """Delete an item, if there is one."""
        await self._execute("delete_item", {"tenant": tenant, "namespace": list(namespace), "key": key})

    async def search(
        self,
        tenant: str,
        prefix: Namespace,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        query: str = "",
        limit: int = 10,
        offset: int = 0,
        refresh: bool = True,
    ) -> list[dict[str, Any]]:
        """Return items below a namespace: by their meaning if there is a query, else the newest first.

        Each has a ``score``, the cosine of the angle between item and query; ``None`` without a query.

        Raises:
            EmbeddingError: The query cannot be embedded at the moment.
        """
        values = {"tenant": tenant, "prefix": list(prefix), "filter": Jsonb(filter or {})}
        if query:
            found = await self._rank(values, query)
            found = found[offset : offset + limit]
        else:
            rows = await self._fetch("search_items", {**values, "limit": limit, "offset": offset})
            found = [{**row, "score": None} for row in rows]
        if refresh:
            await self._refresh(tenant, found)
        return found

    async def list_namespaces(
        self,
        tenant: str,
        *,
        prefix: Namespace | None = None,
        suffix: Namespace | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[list[str]]:
        """Return namespaces that hold items, cut off at a depth."""
        values = {
            "tenant": tenant,
            "prefix": list(prefix) if prefix else None,
            "suffix": list(suffix) if suffix else None,
            "depth": max_depth or MAX_DEPTH,
            "limit": limit,
            "offset": offset,
        }
        return [row["namespace"] for row in await self._fetch("list_namespaces", values)]

    async def delete_expired(self) -> None:
        """Delete the items whose time is over."""
        async with self._pool.connection() as connection:
            while (
                await connection.execute(QUERIES["delete_expired_items"], {"limit": _SWEEP})
            ).rowcount == _SWEEP:
                pass

    async def _rank(self, values: Mapping[str, Any], query: str) -> list[dict[str, Any]]:
        vector = np.asarray(await self._embedder.embed_query(query), np.float32)
        rows = await self._fetch(
            "list_embedded_items", {**values, "model": self._embedder.model, "limit": MAX_COMPARED}
        )
        if not rows:
            return []
        scores = np.asarray([row.pop("embedding") for row in rows], np.float32) @ vector
        order = np.argsort(-scores, kind="stable")
        return [{**rows[index], "score": float(scores[index])} for index in order]

    async def _refresh(self, tenant: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            items = json.dumps([{"namespace": row["namespace"], "key": row["key"]} for row in rows])
            await self._execute("refresh_items", {"tenant": tenant, "items": items})

    async def _fetch(self, query: str, values: Mapping[str, Any]) -> list[DictRow]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchall()

    async def _execute(self, query: str, values: Mapping[str, Any]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(QUERIES[query], values)


def check_namespace(namespace: Namespace) -> None:
    """Check a namespace that something is written to.

    Raises:
        InvalidRequest: It is empty, a label is empty or has a dot, or it is the memory's.
    """
    if not namespace or not all(label and "." not in label for label in namespace):
        raise InvalidRequest("namespace: it has at least one label, and none is empty or has a dot")
    if namespace[0] == MEMORY_ROOT:
        raise InvalidRequest(f"namespace: {MEMORY_ROOT!r} is the memory's; graphs keep items elsewhere")


def _read_text(value: Mapping[str, Any], fields: Sequence[str] | None) -> str:
    """Return the texts of a value, or of some of its fields."""
    chosen = value if fields is None else {name: value.get(name) for name in fields}
    return "\n".join(_list_texts(chosen))[:_INDEXED_CHARACTERS]


def _list_texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _list_texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _list_texts(each)


class TenantStore(BaseStore):
    """LangGraph's store for the graphs that run on behalf of a tenant: that of the task in progress.

    Args:
        items: Where items are.
        tenant: Returns whose items are meant.
    """

    supports_ttl = True

    def __init__(self, items: ItemStore, tenant: Callable[[], str] = lambda: current_actor().tenant) -> None:
        self._items = items
        self._tenant = tenant

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Refuse: the service is asynchronous."""
        raise NotImplementedError("the store is asynchronous; use aget, aput, asearch and adelete")

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations side by side."""
        return list(await asyncio.gather(*map(self._execute, ops)))

    async def _execute(self, op: Op) -> Result:
        tenant = self._tenant()
        match op:
            case GetOp():
                row = await self._items.get(tenant, op.namespace, op.key, refresh=op.refresh_ttl)
                return Item(**{**row, "namespace": tuple(row["namespace"])}) if row else None
            case SearchOp():
                rows = await self._items.search(
                    tenant,
                    op.namespace_prefix,
                    filter=op.filter,
                    query=op.query or "",
                    limit=op.limit,
                    offset=op.offset,
                    refresh=op.refresh_ttl,
                )
                return [SearchItem(**{**row, "namespace": tuple(row["namespace"])}) for row in rows]
            case ListNamespacesOp():
                matches = {each.match_type: each.path for each in op.match_conditions or ()}
                found = await self._items.list_namespaces(
                    tenant,
                    prefix=matches.get("prefix"),
                    suffix=matches.get("suffix"),
                    max_depth=op.max_depth,
                    limit=op.limit,
                    offset=op.offset,
                )
                return [tuple(namespace) for namespace in found]
            case PutOp(value=None):
                await self._items.delete(tenant, op.namespace, op.key)
            case PutOp():
                await self._items.put(
                    tenant,
                    op.namespace,
                    op.key,
                    op.value or {},
                    index=True if op.index is None else op.index,
                    ttl=op.ttl if isinstance(op.ttl, int | float) else None,
                )
        return None
