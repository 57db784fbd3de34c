"""What is near a node of the contact's graph, at a moment of valid time as believed at another."""

from datetime import datetime
from typing import Final

from psycopg.rows import DictRow

from core.errors import MemoryRefused
from core.memory import Edge, Graph, Node, Scope
from core.postgres import Pool
from memory.facts import AWAIT_WRITERS_SQL
from memory.messages import check_scope, to_utc

MAX_DEPTH: Final = 5
# The nearest edges; what has more is not a picture anyone can use.
MAX_EDGES: Final = 500

NEAR_SQL: Final = """
WITH RECURSIVE scope AS MATERIALIZED (
    SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s
), holding AS MATERIALIZED (
    SELECT id, source, target FROM memory.edges
    WHERE scope = (SELECT id FROM scope) AND (%(type)s = '' OR type = %(type)s)
      AND valid_from <= coalesce(%(as_of)s, now())
      AND coalesce(valid_to, 'infinity') > coalesce(%(as_of)s, now())
      AND recorded_at <= %(believed_at)s::timestamptz
      AND (superseded_at IS NULL OR superseded_at > %(believed_at)s::timestamptz)
), walk AS (
    SELECT id AS node, 0 AS hops FROM memory.nodes WHERE scope = (SELECT id FROM scope) AND key = %(key)s
    UNION
    SELECT CASE WHEN source = node THEN target ELSE source END, hops + 1
    FROM walk JOIN holding ON node IN (source, target) WHERE hops < %(depth)s
), reached AS (
    SELECT node, min(hops) AS hops FROM walk GROUP BY node
), found AS (
    SELECT holding.id, min(hops) AS hops FROM reached JOIN holding ON node IN (source, target)
    WHERE hops < %(depth)s GROUP BY holding.id ORDER BY hops, holding.id LIMIT %(limit)s
)
SELECT source.kind AS source_kind, source.key AS source_key, source.label AS source_label,
       target.kind AS target_kind, target.key AS target_key, target.label AS target_label,
       type, valid_from, valid_to, source_message_id
FROM found JOIN memory.edges USING (id)
JOIN memory.nodes AS source ON source.id = edges.source
JOIN memory.nodes AS target ON target.id = edges.target
ORDER BY hops, found.id
"""
NODE_SQL: Final = """
SELECT kind, key, label FROM memory.nodes
WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
  AND key = %(key)s ORDER BY kind
"""


async def query_graph(
    pool: Pool,
    scope: Scope,
    node: str,
    *,
    edge_type: str = "",
    depth: int = 1,
    as_of: datetime | None = None,
    believed_at: datetime | None = None,
) -> Graph:
    """The nearest :data:`MAX_EDGES` edges; see :class:`core.memory.Memory`.

    Raises:
        MemoryRefused: The depth is none, or a time has no time zone.
    """
    _check(scope, depth, as_of, believed_at)
    parameters = {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "key": node.replace("\0", ""),
        "type": edge_type.replace("\0", ""),
        "depth": depth,
        "as_of": as_of,
        "believed_at": believed_at or "infinity",
        "limit": MAX_EDGES,
    }
    async with pool.connection() as connection, connection.transaction():
        if believed_at:
            await connection.execute(AWAIT_WRITERS_SQL, (scope.tenant, scope.contact_id))
        rows = await (await connection.execute(NEAR_SQL, parameters)).fetchall()
        begun = await (await connection.execute(NODE_SQL, parameters)).fetchall()
    edges = tuple(_edge(row) for row in rows)
    asked = [Node(row["kind"], row["key"], row["label"]) for row in begun]
    met = (end for edge in edges for end in (edge.source, edge.target))
    return Graph(nodes=tuple(dict.fromkeys([*asked, *met])), edges=edges)


def _check(scope: Scope, depth: int, *times: datetime | None) -> None:
    check_scope(scope)
    if not 1 <= depth <= MAX_DEPTH:
        raise MemoryRefused(f"depth must be from 1 to {MAX_DEPTH}")
    if any(at is not None and at.tzinfo is None for at in times):
        raise MemoryRefused("as_of and believed_at must say in which time zone they are")


def _edge(row: DictRow) -> Edge:
    return Edge(
        source=Node(row["source_kind"], row["source_key"], row["source_label"]),
        type=row["type"],
        target=Node(row["target_kind"], row["target_key"], row["target_label"]),
        valid_from=to_utc(row["valid_from"]),
        valid_to=to_utc(row["valid_to"]) if row["valid_to"] else None,
        source_message_id=row["source_message_id"],
    )
