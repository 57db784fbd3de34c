"""Threads as the Agent Server API shows them: search, count, create and change them.

The metadata of a thread is the caller's, with what the service knows of it: its graph, and for a customer's
session the contact, the channel and the agent that answered last.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb

from checkpoints.copying import copy_checkpoints
from checkpoints.pruning import collect_garbage, delete_garbage, list_lineage, select_retained
from core.errors import AlreadyExists
from core.postgres import Pool
from service.agent_server.assistants import QUERIES
from service.auth.principal import Identity
from service.runs.threads import no_such_thread

# The fields of a thread: ``thread_id``, ``graph``, ``status``, ``metadata``, ``created_at``, ``updated_at``.
Thread: TypeAlias = DictRow

# Keys of the metadata that the service adds.
KNOWN_KEYS: Final = ("graph_id", "contact_id", "channel_id", "agent")
SORT_COLUMNS: Final[Mapping[str, str]] = {
    "thread_id": "thread_id",
    "status": "status",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "state_updated_at": "state_updated_at",
}

# Threads whose id is no UUID are out of reach of this API's paths.
_VIEW: Final = SQL("""
SELECT * FROM (
    SELECT thread.id AS thread_id, thread.tenant, thread.graph, thread.created_at,
           greatest(thread.updated_at, run.changed_at) AS updated_at,
           coalesce(run.changed_at, thread.updated_at) AS state_updated_at,
           CASE WHEN EXISTS (SELECT FROM runs.runs WHERE thread_id = thread.id AND ended_at IS NULL)
                THEN 'busy' ELSE thread.status END AS status,
           thread.metadata AS own_metadata,
           CASE WHEN thread.ttl_minutes IS NOT NULL THEN jsonb_build_object(
               'strategy', thread.ttl_strategy, 'ttl_minutes', thread.ttl_minutes,
               'expires_at', greatest(thread.updated_at, run.changed_at)
                             + thread.ttl_minutes * interval '1 minute'
           ) END AS ttl,
           thread.metadata || jsonb_strip_nulls(jsonb_build_object(
               'graph_id', coalesce(thread.graph, thread.metadata ->> 'graph_id'),
               'contact_id', session.contact_id, 'channel_id', nullif(session.channel_id, '')
           )) AS metadata,
           CASE WHEN session.id IS NOT NULL THEN (
               SELECT checkpoint -> 'channel_values' ->> 'agent_used' FROM checkpoints
               WHERE thread_id = thread.id AND checkpoint_ns = '' ORDER BY checkpoint_id DESC LIMIT 1
           ) END AS agent
    FROM runs.threads AS thread
    LEFT JOIN sessions.sessions AS session ON session.id = thread.id AND session.tenant = thread.tenant
    LEFT JOIN LATERAL (
        SELECT coalesce(ended_at, started_at, created_at) AS changed_at FROM runs.runs
        WHERE thread_id = thread.id ORDER BY created_at DESC LIMIT 1
    ) AS run ON true
    WHERE thread.tenant = %(tenant)s AND (%(ids)s::text[] IS NULL OR thread.id = ANY(%(ids)s))
      AND thread.id ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
) AS thread
WHERE own_metadata @> %(own)s AND metadata @> %(known)s
  AND (%(agent)s::text IS NULL OR agent = %(agent)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(values)s::jsonb IS NULL OR (
      SELECT checkpoint -> 'channel_values' FROM checkpoints
      WHERE thread_id = thread.thread_id AND checkpoint_ns = '' ORDER BY checkpoint_id DESC LIMIT 1
  ) @> %(values)s)
""")


class ThreadStore:
    """Threads in the service's Postgres.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(
        self,
        identity: Identity,
        thread_id: UUID,
        *,
        metadata: Mapping[str, Any],
        is_found_enough: bool,
    ) -> Thread:
        """Create a thread and return it.

        Args:
            identity: The caller.
            thread_id: Its id.
            metadata: The caller's.
            is_found_enough: Whether a thread of that id is returned instead of created.

        Raises:
            AlreadyExists: The id is taken, by whichever tenant.
        """
        values = {"id": str(thread_id), "tenant": identity.tenant, "user": identity.user}
        row = None
        # Empty while another transaction has inserted the row and not committed before ours began.
        while row is None:
            row = await self._fetch_one("add_thread", {**values, "metadata": Jsonb(metadata)})
        if not row["is_new"] and not (is_found_enough and row["tenant"] == identity.tenant):
            raise AlreadyExists(f"the thread id {str(thread_id)!r} is taken; leave it out for a new one")
        return await self.get(identity.tenant, thread_id)

    async def get(self, tenant: str, thread_id: UUID) -> Thread:
        """Return a thread.

        Raises:
            NotFound: The tenant has none of that id.
        """
        rows = await self.search(tenant, filters={"ids": [str(thread_id)]}, limit=1)
        if not rows:
            raise no_such_thread(str(thread_id))
        return rows[0]

    async def update(self, tenant: str, thread_id: UUID, metadata: Mapping[str, Any]) -> Thread:
        """Merge metadata into a thread's, and return the thread.

        Raises:
            NotFound: The tenant has none of that id.
        """
        values = {"tenant": tenant, "id": str(thread_id), "metadata": Jsonb(metadata)}
        if await self._fetch_one("update_thread", values) is None:
            raise no_such_thread(str(thread_id))
        return await self.get(tenant, thread_id)

    async def set_ttl(
        self, tenant: str, thread_id: str, minutes: float, strategy: Literal["delete", "keep_latest"]
    ) -> None:
        """Have a thread, or its history, deleted so long after its last change.

        Raises:
            NotFound: The tenant has no such thread.
        """
        values = {"tenant": tenant, "id": thread_id, "minutes": minutes, "strategy": strategy}
        if await self._fetch_one("set_thread_ttl", values) is None:
            raise no_such_thread(thread_id)

    async def copy(self, identity: Identity, source: str, target: str) -> None:
        """Copy a thread that is at rest, with its checkpoints; the copy has none of its runs.

        Raises:
            NotFound: The tenant has no such thread.
        """
        values = {"source": source, "target": target, "tenant": identity.tenant, "user": identity.user}
        async with self._pool.connection() as connection, connection.transaction():
            if await (await connection.execute(QUERIES["copy_thread"], values)).fetchone() is None:
                raise no_such_thread(source)
            await copy_checkpoints(connection, source, target)

    async def prune(self, thread_id: str) -> None:
        """Delete the checkpoints of a thread that is at rest, but the latest and what it is rebuilt from."""
        async with self._pool.connection() as connection, connection.transaction():
            lineage = await list_lineage(connection, thread_id)
            retained = select_retained(lineage, keep=1)
            if deleted := [each.checkpoint_id for each in lineage if each.checkpoint_id not in retained]:
                await delete_garbage(connection, await collect_garbage(connection, thread_id, deleted))

    async def set_status(self, tenant: str, thread_id: str, status: Literal["idle", "interrupted"]) -> None:
        """Take note of what a change of its state has left a thread with."""
        await self._fetch_one("set_thread_status", {"tenant": tenant, "id": thread_id, "status": status})

    async def name_graph(self, tenant: str, thread_id: UUID, graph: str) -> None:
        """Take note of the graph of a thread on which nothing has run yet."""
        await self._fetch_one("name_thread_graph", {"tenant": tenant, "id": str(thread_id), "graph": graph})

    async def search(
        self,
        tenant: str,
        *,
        filters: Mapping[str, Any],
        sort_by: str = "created_at",
        descending: bool = True,
        limit: int,
        offset: int = 0,
    ) -> Sequence[Thread]:
        """Return threads.

        Args:
            tenant: Whose.
            filters: ``metadata`` and ``values`` to contain, ``ids`` and ``status``; ``None``: any.
            sort_by: A key of :data:`SORT_COLUMNS`.
            descending: Whether the highest come first.
            limit: How many at most.
            offset: So many are left out.
        """
        order = SQL(" ORDER BY {} {}, thread_id LIMIT %(limit)s OFFSET %(offset)s").format(
            Identifier(SORT_COLUMNS[sort_by]), SQL("DESC" if descending else "ASC")
        )
        values = {**_to_values(tenant, filters), "limit": limit, "offset": offset}
        rows = await self._fetch_view(Composed([_VIEW.format(), order]), values)
        for row in rows:
            if row["agent"]:
                row["metadata"]["agent"] = row["agent"]
        return rows

    async def count(self, tenant: str, filters: Mapping[str, Any]) -> int:
        """Return how many threads there are; see :meth:`search`."""
        query = SQL("SELECT count(*) AS found FROM ({}) AS found").format(_VIEW.format())
        [row] = await self._fetch_view(query, _to_values(tenant, filters))
        return int(row["found"])

    async def _fetch_view(self, query: Composed, values: Mapping[str, Any]) -> list[DictRow]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(query, values)).fetchall()

    async def _fetch_one(self, query: str, values: Mapping[str, Any]) -> DictRow | None:
        async with self._pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchone()


def _to_values(tenant: str, filters: Mapping[str, Any]) -> dict[str, Any]:
    metadata = dict(filters.get("metadata") or {})
    agent = metadata.pop("agent", None)
    known = {name: metadata.pop(name) for name in KNOWN_KEYS if name in metadata}
    values = filters.get("values")
    return {
        "tenant": tenant,
        "ids": filters.get("ids"),
        "own": Jsonb(metadata),
        "known": Jsonb(known),
        "agent": agent,
        "status": filters.get("status"),
        "values": Jsonb(values) if values else None,
    }
