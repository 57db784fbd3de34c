"""Assistants: configured variants of a graph, with versions. Each tenant has one for each graph."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4, uuid5

from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb

from core.errors import AlreadyExists, InvalidRequest, NotFound
from core.postgres import Pool, read_queries
from service.runs.graphs import AgentGraph, GraphCatalogue

QUERIES: Final = read_queries(Path(__file__).parent / "queries.sql")

# LangGraph's clients compute the id of a graph's own assistant with this namespace.
SYSTEM_NAMESPACE: Final = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
_COLUMNS: Final = SQL(
    "id::text AS assistant_id, graph AS graph_id, name, description, config, context, metadata, version, "
    "created_at, updated_at"
)
SORT_COLUMNS: Final[Mapping[str, str]] = {
    "assistant_id": "id",
    "graph_id": "graph",
    "name": "name",
    "created_at": "created_at",
    "updated_at": "updated_at",
}

# The fields of an assistant, as the API names them.
Assistant: TypeAlias = DictRow


def system_assistant_id(graph: str) -> UUID:
    """Return the id of the assistant that every tenant has for a graph."""
    return uuid5(SYSTEM_NAMESPACE, graph)


def no_such_assistant(assistant_id: object) -> NotFound:
    """Return the error for an assistant that does not exist or is not the caller's."""
    return NotFound(
        f"there is no assistant {str(assistant_id)!r}", details={"assistant_id": str(assistant_id)}
    )


class AssistantStore:
    """Assistants in the service's Postgres.

    Args:
        pool: The service's pool.
        catalogue: The graphs.
    """

    def __init__(self, pool: Pool, catalogue: GraphCatalogue) -> None:
        self._pool = pool
        self.catalogue = catalogue
        # Tenants whose system assistants are in the table.
        self._known: set[str] = set()
        self._system_ids = {system_assistant_id(name): graph for name, graph in catalogue.items()}

    async def get(self, tenant: str, assistant_id: UUID) -> Assistant:
        """Return an assistant.

        Raises:
            NotFound: The tenant has none of that id.
        """
        await self._add_system_assistants(tenant)
        row = await self._fetch_one("get_assistant", {"tenant": tenant, "id": assistant_id})
        if row is None:
            raise no_such_assistant(assistant_id)
        return row

    def find_graph(self, name: str) -> AgentGraph | None:
        """Return the graph of that name, or of the system assistant with that id."""
        try:
            return self._system_ids.get(UUID(name))
        except ValueError:
            return self.catalogue.get(name)

    async def resolve(self, tenant: str, name: str) -> Assistant:
        """Return the assistant with an id, or that of the graph with a name.

        Raises:
            NotFound: The tenant has no assistant of that id.
            InvalidRequest: It is no id, and there is no graph of that name.
        """
        try:
            assistant_id = UUID(name)
        except ValueError:
            if name not in self.catalogue:
                raise InvalidRequest(
                    f"assistant_id: {name[:100]!r} is neither an assistant's id nor a graph's name; "
                    f"there are {', '.join(self.catalogue)}"
                ) from None
            assistant_id = system_assistant_id(name)
        return await self.get(tenant, assistant_id)

    async def create(
        self, tenant: str, fields: Mapping[str, Any], *, assistant_id: UUID | None, is_found_enough: bool
    ) -> Assistant:
        """Create an assistant.

        Args:
            tenant: Whose it is.
            fields: ``graph_id``, ``name``, ``description``, ``config``, ``context`` and ``metadata``.
            assistant_id: Its id; ``None``: a new one.
            is_found_enough: Whether an assistant of that id is returned instead of created.

        Raises:
            NotFound: There is no such graph.
            AlreadyExists: The id is taken.
        """
        await self._add_system_assistants(tenant)
        graph = self.catalogue.find(fields["graph_id"])
        assistant_id = assistant_id or uuid4()
        row = await self._fetch_one(
            "add_assistant",
            {"tenant": tenant, "id": assistant_id, **_to_columns({**fields, "graph_id": graph.name})},
        )
        if row:
            return row
        known = await self._fetch_one("get_assistant", {"tenant": tenant, "id": assistant_id})
        if known is None or not is_found_enough:
            raise AlreadyExists(
                f"the assistant id {str(assistant_id)!r} is taken; leave it out for a new one"
            )
        return known

    async def update(self, tenant: str, assistant_id: UUID, fields: Mapping[str, Any]) -> Assistant:
        """Make a new version of an assistant; fields that are ``None`` stay, and metadata is merged.

        Raises:
            NotFound: The tenant has no assistant of that id, or there is no such graph.
        """
        await self.get(tenant, assistant_id)
        if fields.get("graph_id"):
            self.catalogue.find(fields["graph_id"])
        row = await self._fetch_one(
            "update_assistant", {"tenant": tenant, "id": assistant_id, **_to_columns(fields)}
        )
        if row is None:
            raise no_such_assistant(assistant_id)
        return row

    async def set_version(self, tenant: str, assistant_id: UUID, version: int) -> Assistant:
        """Have runs use an earlier version of an assistant.

        Raises:
            NotFound: There is no such assistant or version.
        """
        await self._add_system_assistants(tenant)
        row = await self._fetch_one(
            "set_assistant_version", {"tenant": tenant, "id": assistant_id, "version": version}
        )
        if row is None:
            raise no_such_assistant(f"{assistant_id} in version {version}")
        return row

    async def list_versions(
        self, tenant: str, assistant_id: UUID, *, metadata: Mapping[str, Any], limit: int, offset: int
    ) -> Sequence[Assistant]:
        """Return an assistant's versions, the newest first.

        Raises:
            NotFound: The tenant has no assistant of that id.
        """
        await self.get(tenant, assistant_id)
        values = {"metadata": Jsonb(metadata), "limit": limit, "offset": offset}
        return await self._fetch_all(
            "list_assistant_versions", {"tenant": tenant, "id": assistant_id, **values}
        )

    async def search(
        self,
        tenant: str,
        *,
        filters: Mapping[str, Any],
        sort_by: str,
        descending: bool,
        limit: int,
        offset: int,
    ) -> Sequence[Assistant]:
        """Return assistants.

        Args:
            tenant: Whose.
            filters: ``metadata`` to contain, ``graph_id``, and a part of the ``name``; ``None``: any.
            sort_by: A key of :data:`SORT_COLUMNS`.
            descending: Whether the highest come first.
            limit: How many at most.
            offset: So many are left out.
        """
        await self._add_system_assistants(tenant)
        order = SQL("{} {}, id").format(
            Identifier(SORT_COLUMNS[sort_by]), SQL("DESC" if descending else "ASC")
        )
        query = SQL("SELECT {} FROM runs.assistants WHERE {} ORDER BY {} LIMIT %(limit)s OFFSET %(offset)s")
        values = {"tenant": tenant, "limit": limit, "offset": offset, **_to_filters(filters)}
        async with self._pool.connection() as connection:
            return await (
                await connection.execute(query.format(_COLUMNS, _CONDITION, order), values)
            ).fetchall()

    async def count(self, tenant: str, filters: Mapping[str, Any]) -> int:
        """Return how many assistants there are; see :meth:`search`."""
        await self._add_system_assistants(tenant)
        query = SQL("SELECT count(*) AS found FROM runs.assistants WHERE {}").format(_CONDITION)
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(query, {"tenant": tenant, **_to_filters(filters)})
            ).fetchone()
        return int(row["found"]) if row else 0

    async def delete(self, tenant: str, assistant_id: UUID) -> None:
        """Delete an assistant with its versions.

        Raises:
            NotFound: The tenant has no assistant of that id.
            InvalidRequest: It is a graph's own.
        """
        if assistant_id in self._system_ids:
            raise InvalidRequest(
                "a graph's own assistant cannot be deleted; delete the assistants you have created"
            )
        if await self._fetch_one("delete_assistant", {"tenant": tenant, "id": assistant_id}) is None:
            raise no_such_assistant(assistant_id)

    async def list_busy_threads(self, tenant: str, assistant_id: UUID) -> list[str]:
        """Return the threads on which runs of an assistant are in progress or wait."""
        rows = await self._fetch_all("list_assistant_runs", {"tenant": tenant, "id": assistant_id})
        return [row["thread_id"] for row in rows]

    async def list_threads(self, tenant: str, assistant_id: UUID, *, limit: int) -> list[str]:
        """Return threads that an assistant has begun."""
        values = {"tenant": tenant, "id": str(assistant_id), "limit": limit}
        return [row["id"] for row in await self._fetch_all("list_assistant_threads", values)]

    async def _add_system_assistants(self, tenant: str) -> None:
        """Add the assistants of a tenant that every tenant has, once in the life of this process."""
        if tenant in self._known:
            return
        values = {
            "tenant": tenant,
            "ids": [system_assistant_id(name) for name in self.catalogue],
            "graphs": list(self.catalogue),
            "descriptions": [graph.description for graph in self.catalogue.values()],
        }
        async with self._pool.connection() as connection:
            await connection.execute(QUERIES["add_system_assistants"], values)
        self._known.add(tenant)

    async def _fetch_one(self, query: str, values: Mapping[str, Any]) -> DictRow | None:
        async with self._pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchone()

    async def _fetch_all(self, query: str, values: Mapping[str, Any]) -> Sequence[DictRow]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchall()


_CONDITION: Final[Composed] = SQL(
    "tenant = %(tenant)s AND metadata @> %(metadata)s AND (%(graph)s::text IS NULL OR graph = %(graph)s) "
    "AND (%(name)s::text IS NULL OR position(lower(%(name)s) IN lower(name)) > 0)"
).format()


def _to_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "metadata": Jsonb(filters.get("metadata") or {}),
        "graph": filters.get("graph_id"),
        "name": filters.get("name"),
    }


def _to_columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    documents = {
        name: None if fields.get(name) is None else Jsonb(fields[name])
        for name in ("config", "context", "metadata")
    }
    return {
        "graph": fields.get("graph_id"),
        "name": fields.get("name"),
        "description": fields.get("description"),
        **documents,
    }
