"""Threads in the checkpoint tables: their owners, those that wait for a person, and their deletion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.postgres import Connection, Pool

OWNER_SQL: Final = """
SELECT metadata ->> 'graph' AS graph, metadata ->> 'tenant' AS tenant FROM checkpoints
WHERE thread_id = %s AND checkpoint_ns = ''
ORDER BY checkpoint_id DESC LIMIT 1
"""

# A thread waits if its latest checkpoint has interrupts among its writes. Some of them may have been answered
# already (another interrupt of the same step keeps it open): only the graph's own state tells which.
WAITING_SQL: Final = """
SELECT latest.thread_id, latest.checkpoint ->> 'ts' AS since, latest.metadata ->> 'graph' AS graph
FROM (SELECT DISTINCT thread_id FROM checkpoint_writes
      WHERE checkpoint_ns = '' AND channel = '__interrupt__') AS interrupted
CROSS JOIN LATERAL (
    SELECT thread_id, checkpoint_id, checkpoint, metadata FROM checkpoints
    WHERE checkpoints.thread_id = interrupted.thread_id AND checkpoint_ns = ''
    ORDER BY checkpoint_id DESC LIMIT 1
) AS latest
WHERE latest.metadata ->> 'tenant' = %(tenant)s AND latest.metadata ->> 'graph' = ANY(%(graphs)s)
  AND EXISTS (
    SELECT FROM checkpoint_writes AS pending
    WHERE pending.thread_id = latest.thread_id AND pending.checkpoint_ns = ''
      AND pending.checkpoint_id = latest.checkpoint_id AND pending.channel = '__interrupt__'
)
ORDER BY latest.checkpoint_id
LIMIT %(limit)s OFFSET %(offset)s
"""

# All namespaces: the thread's own and those of the subgraphs it called.
DELETE_SQL: Final = (
    "DELETE FROM checkpoint_writes WHERE thread_id = %s",
    "DELETE FROM checkpoint_blobs WHERE thread_id = %s",
    "DELETE FROM checkpoints WHERE thread_id = %s",
)


@dataclass(frozen=True, slots=True)
class ThreadOwner:
    """The graph and the tenant of a thread, from the metadata of its latest run."""

    graph: str | None
    tenant: str | None


@dataclass(frozen=True, slots=True)
class WaitingThread:
    """A thread whose latest step waits for a person's answer.

    Attributes:
        thread_id: The thread.
        since: When the step began, ISO 8601.
        graph: The graph that waits, from the run's metadata.
    """

    thread_id: str
    since: str
    graph: str


async def load_thread_owner(connection: Connection, thread_id: str) -> ThreadOwner | None:
    """Return a thread's owner, or None if the thread does not exist."""
    row = await (await connection.execute(OWNER_SQL, (thread_id,))).fetchone()
    return ThreadOwner(**row) if row else None


async def list_waiting_threads(
    pool: Pool, tenant: str, graphs: Sequence[str], *, limit: int, offset: int = 0
) -> list[WaitingThread]:
    """Return the tenant's waiting threads of these graphs, the longest-waiting first."""
    async with pool.connection() as connection:
        parameters = {"tenant": tenant, "graphs": list(graphs), "limit": limit, "offset": offset}
        rows = await (await connection.execute(WAITING_SQL, parameters)).fetchall()
    return [WaitingThread(**row) for row in rows]


async def delete_checkpoints(connection: Connection, thread_id: str) -> None:
    """Delete a thread's checkpoints, writes and values, within the caller's transaction."""
    for statement in DELETE_SQL:
        await connection.execute(statement, (thread_id,))
