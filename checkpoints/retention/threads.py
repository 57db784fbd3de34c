"""The threads there are, a page at a time."""

from dataclasses import dataclass
from datetime import timedelta

from psycopg import AsyncConnection
from psycopg.rows import DictRow

# Steps from one thread to the next along the primary key, so that a page costs the same whatever the
# threads' length. A thread waits when its latest checkpoint has a question among its writes.
THREADS_SQL = """
WITH RECURSIVE page AS (
    (SELECT thread_id, 1 AS place FROM checkpoints WHERE thread_id > %(after)s ORDER BY thread_id LIMIT 1)
    UNION ALL
    SELECT following.thread_id, place + 1 FROM page CROSS JOIN LATERAL (
        SELECT thread_id FROM checkpoints WHERE thread_id > page.thread_id ORDER BY thread_id LIMIT 1
    ) AS following
    WHERE place < %(limit)s
)
SELECT page.thread_id, head.graph, head.idle, coalesce(head.waits, false) AS waits,
       (SELECT count(*) FROM checkpoints
        WHERE checkpoints.thread_id = page.thread_id AND checkpoint_ns = '') AS checkpoints
FROM page LEFT JOIN LATERAL (
    SELECT metadata ->> 'graph' AS graph,
           now() - (checkpoint ->> 'ts')::timestamptz AS idle,
           EXISTS (SELECT FROM checkpoint_writes AS asked
                   WHERE asked.thread_id = latest.thread_id AND asked.checkpoint_ns = ''
                     AND asked.checkpoint_id = latest.checkpoint_id
                     AND asked.channel = '__interrupt__') AS waits
    FROM checkpoints AS latest
    WHERE latest.thread_id = page.thread_id AND checkpoint_ns = ''
    ORDER BY checkpoint_id DESC LIMIT 1
) AS head ON true
ORDER BY page.thread_id
"""


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as retention sees it.

    Attributes:
        thread_id: The thread.
        graph: The graph of its latest run, where its metadata names one.
        idle: Since its latest checkpoint; ``None`` where it has none of its own.
        waits: Whether it waits for a person.
        checkpoints: How many it has, those of subgraphs aside.
    """

    thread_id: str
    graph: str | None
    idle: timedelta | None
    waits: bool
    checkpoints: int


async def threads_page(connection: AsyncConnection[DictRow], *, after: str, limit: int) -> list[Thread]:
    """The ``limit`` threads that come after the one named; the empty text begins."""
    cursor = await connection.execute(THREADS_SQL, {"after": after, "limit": limit})
    return [Thread(**row) for row in await cursor.fetchall()]
