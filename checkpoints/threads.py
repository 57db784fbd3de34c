"""Threads in the checkpoint tables: those that wait for a person, and their deletion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.postgres import Connection, Pool

# Triggers maintain the table waiting_threads (sql/0001_checkpoints.sql). Some interrupts of a thread may have
# been answered already (another one of the same step keeps it open): only the graph's own state tells which.
WAITING_SQL: Final = """
SELECT thread_id, checkpoint_id, since, graph FROM waiting_threads
WHERE tenant = %(tenant)s AND graph = ANY(%(graphs)s) AND checkpoint_id > %(after)s
ORDER BY checkpoint_id LIMIT %(limit)s
"""

# All namespaces: the thread's own and those of the subgraphs it called.
DELETE_SQL: Final = (
    "DELETE FROM checkpoint_writes WHERE thread_id = %s",
    "DELETE FROM checkpoint_blobs WHERE thread_id = %s",
    "DELETE FROM checkpoints WHERE thread_id = %s",
    "DELETE FROM waiting_threads WHERE thread_id = %s",
)


@dataclass(frozen=True, slots=True)
class WaitingThread:
    """A thread whose latest step waits for a person's answer.

    Attributes:
        thread_id: The thread.
        checkpoint_id: Where it waits; ids are time-ordered, so that this is the position in the list.
        since: When the step began, ISO 8601.
        graph: The graph that waits, from the run's metadata.
    """

    thread_id: str
    checkpoint_id: str
    since: str
    graph: str


async def list_waiting_threads(
    pool: Pool, tenant: str, graphs: Sequence[str], *, limit: int, after: str = ""
) -> list[WaitingThread]:
    """Return the tenant's waiting threads of these graphs, the longest-waiting first.

    Args:
        pool: The service's pool.
        tenant: Whose threads.
        graphs: Names of the graphs that wait.
        limit: How many threads at most.
        after: The ``checkpoint_id`` of the last thread of the previous page; empty: the first page.
    """
    parameters = {"tenant": tenant, "graphs": list(graphs), "limit": limit, "after": after}
    async with pool.connection() as connection:
        rows = await (await connection.execute(WAITING_SQL, parameters)).fetchall()
    return [WaitingThread(**row) for row in rows]


async def delete_checkpoints(connection: Connection, thread_id: str) -> None:
    """Delete a thread's checkpoints, writes and values, within the caller's transaction."""
    for statement in DELETE_SQL:
        await connection.execute(statement, (thread_id,))
