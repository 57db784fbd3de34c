"""Erasing what is remembered: rows are deleted, none is marked."""

from core.memory import ErasedCounts, Scope
from core.postgres import Connection, Pool
from memory.database import retry_on_conflict
from memory.messages import check_scope, check_session

# Who writes to the scope meanwhile waits.
LOCK_SCOPE_SQL = "SELECT id FROM memory.scopes WHERE tenant = %s AND contact_id = %s FOR UPDATE"

_MESSAGE_IDS = "SELECT id FROM memory.messages WHERE scope = %(scope)s AND session_id = %(session)s"
# In this order, so that a cascade takes nothing before it is counted. %(session)s is '' for all. Edges
# have their session from the message they were learnt from.
_OF_MESSAGES = """message IN (
    SELECT seq FROM memory.messages WHERE scope = %(scope)s AND (%(session)s = '' OR session_id = %(session)s)
)"""
# A fact that a message which stays has said too is kept, as that message's.
KEEP_FACTS_SQL = f"""
UPDATE memory.facts SET source_message_id = other.source_message_id
FROM (
    SELECT DISTINCT ON (origin) origin, source_message_id FROM memory.statements
    WHERE scope = %(scope)s AND NOT ended AND source_message_id NOT IN ({_MESSAGE_IDS})
    ORDER BY origin, recorded_at
) AS other
WHERE %(session)s <> '' AND scope = %(scope)s AND facts.origin = other.origin
  AND facts.source_message_id IN ({_MESSAGE_IDS})
"""  # noqa: S608  # constants alone
STATEMENTS = {
    "statements": f"""DELETE FROM memory.statements
        WHERE scope = %(scope)s AND (%(session)s = '' OR source_message_id IN ({_MESSAGE_IDS}))""",  # noqa: S608
    "facts": f"""DELETE FROM memory.facts
        WHERE scope = %(scope)s AND (%(session)s = '' OR source_message_id IN ({_MESSAGE_IDS}))""",  # noqa: S608
    # Notes name no session: they go with the contact.
    "items": "DELETE FROM memory.items WHERE scope = %(scope)s AND %(session)s = ''",
    "vectors": f"""DELETE FROM memory.vectors WHERE scope = %(scope)s AND unit IN (
        SELECT id FROM memory.units WHERE {_OF_MESSAGES})""",  # noqa: S608  # constants alone
    "units": f"DELETE FROM memory.units WHERE scope = %(scope)s AND {_OF_MESSAGES}",  # noqa: S608
    "edges": """DELETE FROM memory.edges
        WHERE scope = %(scope)s AND (%(session)s = '' OR source_message_id IN (
        SELECT id FROM memory.messages WHERE scope = %(scope)s AND session_id = %(session)s))""",
    "lines": """DELETE FROM memory.lines WHERE scope = %(scope)s AND (%(session)s = '' OR NOT EXISTS (
        SELECT FROM memory.facts WHERE facts.line = lines.id
        UNION ALL SELECT FROM memory.edges WHERE edges.line = lines.id))""",
    "nodes": """DELETE FROM memory.nodes WHERE scope = %(scope)s AND (%(session)s = '' OR NOT EXISTS (
        SELECT FROM memory.edges WHERE edges.scope = %(scope)s AND nodes.id IN (source, target)))""",
    "messages": """DELETE FROM memory.messages
        WHERE scope = %(scope)s AND (%(session)s = '' OR session_id = %(session)s)""",
}
# What was said of something that is gone.
ORPHANS_SQL = """
DELETE FROM memory.statements WHERE scope = %(scope)s
  AND NOT EXISTS (SELECT FROM memory.facts WHERE facts.origin = statements.origin)
  AND NOT EXISTS (SELECT FROM memory.edges WHERE edges.origin = statements.origin)
"""
DELETE_SCOPE_SQL = "DELETE FROM memory.scopes WHERE id = %s"


async def forget(pool: Pool, scope: Scope, *, session_id: str, vectors: bool) -> ErasedCounts:
    """Erase a session, or the whole contact where none is named; nothing there is fine.

    Args:
        pool: The service's pool.
        scope: Whose memory.
        session_id: The session, or ``""``.
        vectors: Whether there is a table of vectors.

    Returns:
        How many rows were erased, by table.
    """
    check_scope(scope)
    check_session(session_id)

    async def attempt() -> ErasedCounts:
        return await _forgotten(pool, scope, session_id, vectors=vectors)

    # The indexer, who locks units before their contact, may be at the same rows.
    return await retry_on_conflict(attempt)


async def _forgotten(pool: Pool, scope: Scope, session_id: str, *, vectors: bool) -> ErasedCounts:
    async with pool.connection() as connection, connection.transaction():
        row = await (await connection.execute(LOCK_SCOPE_SQL, (scope.tenant, scope.contact_id))).fetchone()
        if row is None:
            return ErasedCounts()
        counts = await _delete(connection, row["id"], session_id, vectors=vectors)
        if not session_id:
            await connection.execute(DELETE_SCOPE_SQL, (row["id"],))
    return ErasedCounts(counts)


async def _delete(connection: Connection, scope: int, session_id: str, *, vectors: bool) -> dict[str, int]:
    parameters = {"scope": scope, "session": session_id}
    counts = {}
    await connection.execute(KEEP_FACTS_SQL.encode(), parameters)
    for table, statement in STATEMENTS.items():
        if table != "vectors" or vectors:
            cursor = await connection.execute(statement.encode(), parameters)
            counts[table] = cursor.rowcount
    counts["statements"] += (await connection.execute(ORPHANS_SQL, parameters)).rowcount
    return counts
