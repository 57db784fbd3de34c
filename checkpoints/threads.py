"""What the checkpoint tables know of threads: whose they are, and which wait for a person."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.postgres import Pool

# A thread waits when its latest checkpoint has interrupts among its writes. Some of them may have been
# answered already (their siblings keep the step open): the graph's own state tells which.
WAITING_SQL = """
SELECT latest.thread_id, latest.checkpoint ->> 'ts' AS since, latest.metadata ->> 'graph' AS graph
FROM (SELECT DISTINCT thread_id FROM checkpoint_writes
      WHERE checkpoint_ns = '' AND channel = '__interrupt__') AS asked
CROSS JOIN LATERAL (
    SELECT thread_id, checkpoint_id, checkpoint, metadata FROM checkpoints
    WHERE checkpoints.thread_id = asked.thread_id AND checkpoint_ns = ''
    ORDER BY checkpoint_id DESC LIMIT 1
) AS latest
WHERE latest.metadata ->> 'tenant' = %(tenant)s AND latest.metadata ->> 'graph' = ANY(%(graphs)s)
  AND EXISTS (
    SELECT FROM checkpoint_writes AS open
    WHERE open.thread_id = latest.thread_id AND open.checkpoint_ns = ''
      AND open.checkpoint_id = latest.checkpoint_id AND open.channel = '__interrupt__'
)
ORDER BY latest.checkpoint_id
LIMIT %(limit)s OFFSET %(offset)s
"""


OWNER_SQL = """
SELECT metadata ->> 'graph' AS graph, metadata ->> 'tenant' AS tenant FROM checkpoints
WHERE thread_id = %s AND checkpoint_ns = ''
ORDER BY checkpoint_id DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class ThreadOwner:
    """The graph and the tenant of a thread, as its latest run's metadata names them."""

    graph: str | None
    tenant: str | None


async def thread_owner(pool: Pool, thread_id: str) -> ThreadOwner | None:
    """Whose a thread is; ``None`` for one that does not exist."""
    async with pool.connection() as connection:
        row = await (await connection.execute(OWNER_SQL, (thread_id,))).fetchone()
    return ThreadOwner(**row) if row else None


@dataclass(frozen=True, slots=True)
class WaitingThread:
    """A thread whose latest step asked a person something.

    Attributes:
        thread_id: The thread.
        since: When the step began, ISO 8601.
        graph: The graph that asks, as its run's metadata names it.
    """

    thread_id: str
    since: str
    graph: str


async def waiting_threads(
    pool: Pool, tenant: str, graphs: Sequence[str], *, limit: int, offset: int = 0
) -> list[WaitingThread]:
    """The tenant's waiting threads of these graphs, those that wait longest first."""
    async with pool.connection() as connection:
        parameters = {"tenant": tenant, "graphs": list(graphs), "limit": limit, "offset": offset}
        rows = await (await connection.execute(WAITING_SQL, parameters)).fetchall()
    return [WaitingThread(**row) for row in rows]
