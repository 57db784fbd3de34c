"""Take checkpoints out of a thread, with everything that only they need."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import DictRow

# A subgraph's call has a namespace of its own, with its task's id after a colon, and names the checkpoint
# it was called from. A subgraph that keeps state between calls has no colon, and stays.
CALLS_SQL = """
SELECT DISTINCT checkpoint_ns FROM checkpoints
WHERE thread_id = %(thread)s AND checkpoint_ns LIKE '%%:%%' AND metadata -> 'parents' ->> '' = ANY(%(gone)s)
"""

# What the rows take, as they lie in the tables; indexes aside.
SIZE_SQL = """
SELECT (SELECT coalesce(sum(pg_column_size(c)), 0) FROM checkpoints AS c
        WHERE thread_id = %(thread)s AND (checkpoint_ns = '' AND checkpoint_id = ANY(%(gone)s)
                                          OR checkpoint_ns = ANY(%(calls)s)))
     + (SELECT coalesce(sum(pg_column_size(w)), 0) FROM checkpoint_writes AS w
        WHERE thread_id = %(thread)s AND (checkpoint_ns = '' AND checkpoint_id = ANY(%(gone)s)
                                          OR checkpoint_ns = ANY(%(calls)s)))
     + (SELECT coalesce(sum(pg_column_size(b)), 0) FROM checkpoint_blobs AS b
        WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)) AS bytes
"""

# The values that only these checkpoints name. One at a time by its key: a join would be planned from the
# size of an average thread.
VALUES_SQL = """
SELECT freed.channel, freed.version, held.bytes FROM (
    SELECT named.key AS channel, named.value AS version
    FROM checkpoints CROSS JOIN LATERAL jsonb_each_text(checkpoint -> 'channel_versions') AS named
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(gone)s)
    EXCEPT
    SELECT named.key, named.value
    FROM checkpoints CROSS JOIN LATERAL jsonb_each_text(checkpoint -> 'channel_versions') AS named
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id <> ALL(%(gone)s)
) AS freed CROSS JOIN LATERAL (
    SELECT pg_column_size(checkpoint_blobs) AS bytes FROM checkpoint_blobs
    WHERE thread_id = %(thread)s AND checkpoint_ns = ''
      AND channel = freed.channel AND version = freed.version
    LIMIT 1
) AS held
"""

# A checkpoint whose parent went is where the thread begins now.
PARENTS_SQL = """
UPDATE checkpoints SET parent_checkpoint_id = NULL
WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND parent_checkpoint_id = ANY(%(gone)s)
  AND checkpoint_id <> ALL(%(gone)s)
"""

DELETE_VALUES_SQL = """
DELETE FROM checkpoint_blobs
WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND channel = %(channel)s AND version = ANY(%(versions)s)
"""

DELETE_SQL = (
    # The checkpoints, and what their steps wrote.
    """DELETE FROM checkpoint_writes
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(gone)s)""",
    """DELETE FROM checkpoints
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(gone)s)""",
    # The calls of subgraphs they made.
    "DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
    "DELETE FROM checkpoint_blobs WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
    "DELETE FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
)


@dataclass(frozen=True, slots=True)
class Garbage:
    """What goes with some checkpoints of a thread.

    Attributes:
        thread_id: The thread.
        checkpoints: Ids of the checkpoints.
        calls: Namespaces of the subgraph calls they made.
        values: Versions of values that no other checkpoint names, by channel.
        bytes: What all of it takes.
    """

    thread_id: str
    checkpoints: Sequence[str]
    calls: Sequence[str]
    values: dict[str, list[str]]
    bytes: int


async def garbage(
    connection: AsyncConnection[DictRow], thread_id: str, checkpoints: Sequence[str]
) -> Garbage:
    """Find what goes with the checkpoints named; nothing is changed."""
    names = {"thread": thread_id, "gone": list(checkpoints)}
    calls = [row["checkpoint_ns"] for row in await (await connection.execute(CALLS_SQL, names)).fetchall()]
    # Not prepared: a plan made for any array looks through it for each row.
    sized = await connection.execute(SIZE_SQL, {**names, "calls": calls}, prepare=False)
    row = await sized.fetchone()
    size = int(row["bytes"]) if row else 0
    values: dict[str, list[str]] = defaultdict(list)
    for value in await (await connection.execute(VALUES_SQL, names, prepare=False)).fetchall():
        values[value["channel"]].append(value["version"])
        size += value["bytes"]
    return Garbage(thread_id, checkpoints, calls, values, size)


async def remove(connection: AsyncConnection[DictRow], found: Garbage) -> None:
    """Delete it, inside the caller's transaction."""
    names = {"thread": found.thread_id, "gone": list(found.checkpoints), "calls": list(found.calls)}
    for statement in (*DELETE_SQL, PARENTS_SQL):
        await connection.execute(statement, names, prepare=False)
    for channel, versions in found.values.items():
        parameters = {"thread": found.thread_id, "channel": channel, "versions": versions}
        await connection.execute(DELETE_VALUES_SQL, parameters, prepare=False)
