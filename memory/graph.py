"""The contact's graph: relations between nodes, which have valid time and transaction time like facts.

In a relation with one value at a time (ASSIGNED_TO) a new target replaces the earlier one; in the others
(HAS_TICKET) each target has a time of its own.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from psycopg.rows import DictRow

from core.errors import MemoryRefused
from core.memory import Edge, Graph, Node, Scope
from core.memory.vocabulary import Vocabulary
from core.postgres import Connection, Pool, read_queries
from core.texts import is_storable
from memory.bitemporal import (
    Clock,
    Statement,
    apply_plan,
    build_line_key,
    find_repeated_row,
    get_line,
    load_believed,
    lock_scope,
    record_statement,
    resolve_known_row,
)
from memory.database import SQL_FOLDER
from memory.facts import AWAIT_WRITERS_SQL, MAX_NAME_CHARACTERS
from memory.messages import MAX_ID_CHARACTERS, check_scope, to_utc
from memory.timelines import Plan, plan_end, plan_statement

MAX_EDGES: Final = 1_000
MAX_DEPTH: Final = 5
# The most edges that a query returns, the nearest first.
MAX_FOUND_EDGES: Final = 500

_Key: TypeAlias = tuple[str, str]

_QUERIES: Final = read_queries(SQL_FOLDER / "graph.sql")
INSERT_SQL: Final = """
INSERT INTO memory.edges (scope, line, source, type, target, source_message_id, valid_from, valid_to,
                          recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
"""

NODE_SQL: Final = """
SELECT kind, key, label FROM memory.nodes
WHERE scope = (SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s)
  AND key = %(key)s ORDER BY kind
"""


async def upsert_edges(pool: Pool, scope: Scope, edges: Sequence[Edge], *, vocabulary: Vocabulary) -> int:
    """Store relations, all or none; see :meth:`core.memory.Memory.upsert_edges`.

    Args:
        pool: The service's pool.
        scope: Whose memory.
        edges: At most :data:`MAX_EDGES`. An edge that has ended closes the one that is believed to hold.
        vocabulary: Which relations have one value at a time.

    Returns:
        How many were new, or changed what was believed.

    Raises:
        MemoryRefused: An edge cannot be stored; none is.
    """
    _check_edges(scope, edges)
    if not edges:
        return 0
    async with pool.connection() as connection, connection.transaction():
        number, clock = await lock_scope(connection, scope)
        nodes = await _upsert_nodes(connection, number, edges)
        writer = _EdgeWriter(connection, number, clock, nodes, vocabulary)
        return sum([await writer.write(edge) for edge in edges])


class _EdgeWriter:
    """Writes edges within a transaction that has locked the scope."""

    def __init__(
        self,
        connection: Connection,
        scope: int,
        clock: Clock,
        nodes: Mapping[_Key, int],
        vocabulary: Vocabulary,
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._clock = clock
        self._nodes = nodes
        self._vocabulary = vocabulary

    async def write(self, edge: Edge) -> bool:
        """Write an edge, and return whether it was new or changed what was believed."""
        names = ["edge", edge.source.kind, edge.source.key, edge.type]
        if edge.type not in self._vocabulary.relations:
            names += [edge.target.kind, edge.target.key]
        line = await get_line(self._connection, self._scope, build_line_key(*names))
        is_new = await self._write_statement(edge, line, ended=False)
        has_ended = edge.valid_to is not None and await self._write_statement(edge, line, ended=True)
        return is_new or has_ended

    async def _write_statement(self, edge: Edge, line: int, *, ended: bool) -> bool:
        target = str(self._nodes[edge.target.kind, edge.target.key])
        statement = Statement(
            scope=self._scope, line=line, message=edge.source_message_id, value=target, ended=ended
        )
        if await find_repeated_row(self._connection, "edges", statement) is not None:
            return False
        moment = self._clock.tick()
        periods = await load_believed(self._connection, "edges", line)
        plan = (
            plan_end(periods, target, edge.valid_to)
            if ended and edge.valid_to
            else plan_statement(periods, target, edge.valid_from, until=edge.valid_to)
        )
        copied = await apply_plan(self._connection, "edges", plan, moment, edge.source_message_id)
        row = await self._insert(edge, statement, plan) if plan.new else resolve_known_row(plan, copied)
        await record_statement(self._connection, "edges", statement, row, moment)
        return plan.new is not None or bool(plan.superseded)

    async def _insert(self, edge: Edge, statement: Statement, plan: Plan) -> int:
        assert plan.new  # noqa: S101  # the caller has looked
        parameters = (
            self._scope,
            statement.line,
            self._nodes[edge.source.kind, edge.source.key],
            edge.type,
            self._nodes[edge.target.kind, edge.target.key],
            edge.source_message_id,
            plan.new.start,
            plan.new.end,
            self._clock.moment,
        )
        row = await (await self._connection.execute(INSERT_SQL, parameters)).fetchone()
        assert row  # noqa: S101  # the INSERT returns one
        return int(row["id"])


async def _upsert_nodes(connection: Connection, scope: int, edges: Sequence[Edge]) -> dict[_Key, int]:
    nodes = [node for edge in edges for node in (edge.source, edge.target)]
    parameters = {
        "scope": scope,
        "kinds": [node.kind for node in nodes],
        "keys": [node.key for node in nodes],
        "labels": [node.label for node in nodes],
    }
    rows = await (await connection.execute(_QUERIES["upsert_nodes"], parameters)).fetchall()
    return {(row["kind"], row["key"]): row["id"] for row in rows}


def _check_edges(scope: Scope, edges: Sequence[Edge]) -> None:
    check_scope(scope)
    if len(edges) > MAX_EDGES:
        raise MemoryRefused(f"{len(edges)} edges at once; send at most {MAX_EDGES}")
    for edge in edges:
        if problem := _find_problem(edge):
            raise MemoryRefused(f"edge {edge.type[:MAX_NAME_CHARACTERS]!r} {problem}")


def _find_problem(edge: Edge) -> str | None:
    if not _is_text(edge.type, MAX_NAME_CHARACTERS):
        return f"must have a type of 1 to {MAX_NAME_CHARACTERS} characters"
    if not (_is_node(edge.source) and _is_node(edge.target)):
        return f"must join nodes whose kind, key and label have 1 to {MAX_NAME_CHARACTERS} characters each"
    if not _is_text(edge.source_message_id, MAX_ID_CHARACTERS):
        return f"must have a source_message_id of 1 to {MAX_ID_CHARACTERS} characters"
    if edge.valid_from.tzinfo is None or (edge.valid_to and edge.valid_to.tzinfo is None):
        return "must have times with a time zone"
    if edge.valid_to and edge.valid_to < edge.valid_from:
        return "ends before it begins"
    return None


def _is_node(node: Node) -> bool:
    return all(_is_text(text, MAX_NAME_CHARACTERS) for text in (node.kind, node.key, node.label))


def _is_text(text: str, limit: int) -> bool:
    return 0 < len(text) <= limit and is_storable(text)


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
    """Return the nearest :data:`MAX_FOUND_EDGES` edges; see :meth:`core.memory.Memory.query_graph`.

    Raises:
        MemoryRefused: The depth is out of range, or a time has no time zone.
    """
    _check_query(scope, depth, as_of, believed_at)
    parameters = {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "key": node.replace("\0", ""),
        "type": edge_type.replace("\0", ""),
        "depth": depth,
        "as_of": as_of,
        "believed_at": believed_at or "infinity",
        "limit": MAX_FOUND_EDGES,
    }
    async with pool.connection() as connection, connection.transaction():
        if believed_at:
            await connection.execute(AWAIT_WRITERS_SQL, (scope.tenant, scope.contact_id))
        rows = await (await connection.execute(_QUERIES["list_neighbourhood"], parameters)).fetchall()
        start_rows = await (await connection.execute(NODE_SQL, parameters)).fetchall()
    edges = tuple(_parse_edge(row) for row in rows)
    starts = [Node(row["kind"], row["key"], row["label"]) for row in start_rows]
    ends = (node for edge in edges for node in (edge.source, edge.target))
    return Graph(nodes=tuple(dict.fromkeys([*starts, *ends])), edges=edges)


def _check_query(scope: Scope, depth: int, *times: datetime | None) -> None:
    check_scope(scope)
    if not 1 <= depth <= MAX_DEPTH:
        raise MemoryRefused(f"depth must be from 1 to {MAX_DEPTH}")
    if any(at is not None and at.tzinfo is None for at in times):
        raise MemoryRefused("as_of and believed_at must have a time zone")


def _parse_edge(row: DictRow) -> Edge:
    return Edge(
        source=Node(row["source_kind"], row["source_key"], row["source_label"]),
        type=row["type"],
        target=Node(row["target_kind"], row["target_key"], row["target_label"]),
        valid_from=to_utc(row["valid_from"]),
        valid_to=to_utc(row["valid_to"]) if row["valid_to"] else None,
        source_message_id=row["source_message_id"],
    )
