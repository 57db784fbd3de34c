"""Edges of the contact's graph: relations, in valid time and in transaction time like facts.

Of a relation with one value at a time (ASSIGNED_TO) a new target takes the place of the earlier one; of the
others (HAS_TICKET) each target has a time of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from core.errors import MemoryRefused
from core.memory import Edge, Node, Scope
from core.memory.vocabulary import Vocabulary
from core.postgres import Connection, Pool
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
from memory.facts import MAX_NAME_CHARACTERS
from memory.messages import MAX_ID_CHARACTERS, check_scope
from memory.timelines import Plan, plan_end, plan_statement

MAX_EDGES: Final = 1_000

_Key: TypeAlias = tuple[str, str]

# Sorted, and a label that is the same is not written: two callers cannot wait for one another.
NODES_SQL: Final = """
WITH given AS (
    SELECT DISTINCT ON (kind, key) kind, key, label
    FROM unnest(%(kinds)s::text[], %(keys)s::text[], %(labels)s::text[])
        WITH ORDINALITY AS given (kind, key, label, place)
    ORDER BY kind, key, place DESC
), written AS (
    INSERT INTO memory.nodes (scope, kind, key, label)
    SELECT %(scope)s, kind, key, label FROM given ORDER BY kind, key
    ON CONFLICT (scope, kind, key) DO UPDATE SET label = excluded.label
        -- Who knows no name gives the key, which takes no name's place.
        WHERE nodes.label <> excluded.label AND excluded.label <> excluded.key
    RETURNING id, kind, key
)
SELECT id, kind, key FROM written
UNION
SELECT nodes.id, kind, key FROM memory.nodes JOIN given USING (kind, key) WHERE scope = %(scope)s
"""
INSERT_SQL: Final = """
INSERT INTO memory.edges (scope, line, source, type, target, source_message_id, valid_from, valid_to,
                          recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
"""


async def upsert_edges(pool: Pool, scope: Scope, edges: Sequence[Edge], *, vocabulary: Vocabulary) -> int:
    """Remember relations, all or none; see :class:`core.memory.Memory`.

    Args:
        pool: The service's pool.
        scope: Whose.
        edges: At most :data:`MAX_EDGES`. One that has ended closes the one that is believed to go on.
        vocabulary: Which relations have one value at a time.

    Returns:
        How many were new, or changed what was believed.

    Raises:
        MemoryRefused: Some do not fit; none is kept.
    """
    _check(scope, edges)
    if not edges:
        return 0
    async with pool.connection() as connection, connection.transaction():
        number, clock = await lock_scope(connection, scope)
        nodes = await _nodes(connection, number, edges)
        relater = _Relater(connection, number, clock, nodes, vocabulary)
        return sum([await relater.relate(edge) for edge in edges])


class _Relater:
    """Keeps edges within one transaction that holds the scope."""

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

    async def relate(self, edge: Edge) -> bool:
        """Whether the edge was new, or changed what was believed."""
        names = ["edge", edge.source.kind, edge.source.key, edge.type]
        if edge.type not in self._vocabulary.relations:
            names += [edge.target.kind, edge.target.key]
        line = await get_line(self._connection, self._scope, build_line_key(*names))
        begun = await self._say(edge, line, ended=False)
        ended = edge.valid_to is not None and await self._say(edge, line, ended=True)
        return begun or ended

    async def _say(self, edge: Edge, line: int, *, ended: bool) -> bool:
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


async def _nodes(connection: Connection, scope: int, edges: Sequence[Edge]) -> dict[_Key, int]:
    nodes = [node for edge in edges for node in (edge.source, edge.target)]
    parameters = {
        "scope": scope,
        "kinds": [node.kind for node in nodes],
        "keys": [node.key for node in nodes],
        "labels": [node.label for node in nodes],
    }
    rows = await (await connection.execute(NODES_SQL, parameters)).fetchall()
    return {(row["kind"], row["key"]): row["id"] for row in rows}


def _check(scope: Scope, edges: Sequence[Edge]) -> None:
    check_scope(scope)
    if len(edges) > MAX_EDGES:
        raise MemoryRefused(f"{len(edges)} edges at once; send at most {MAX_EDGES}")
    for edge in edges:
        fault = _fault(edge)
        if fault:
            raise MemoryRefused(f"edge {edge.type[:MAX_NAME_CHARACTERS]!r} {fault}")


def _fault(edge: Edge) -> str | None:
    if not _is_text(edge.type, MAX_NAME_CHARACTERS):
        return f"must have a type of 1 to {MAX_NAME_CHARACTERS} characters"
    if not (_is_node(edge.source) and _is_node(edge.target)):
        return f"must join nodes whose kind, key and label have 1 to {MAX_NAME_CHARACTERS} characters each"
    if not _is_text(edge.source_message_id, MAX_ID_CHARACTERS):
        return f"must have a source_message_id of 1 to {MAX_ID_CHARACTERS} characters"
    if edge.valid_from.tzinfo is None or (edge.valid_to and edge.valid_to.tzinfo is None):
        return "must say in which time zone its times are"
    if edge.valid_to and edge.valid_to < edge.valid_from:
        return "ends before it begins"
    return None


def _is_node(node: Node) -> bool:
    return all(_is_text(text, MAX_NAME_CHARACTERS) for text in (node.kind, node.key, node.label))


def _is_text(text: str, most: int) -> bool:
    return 0 < len(text) <= most and is_storable(text)
