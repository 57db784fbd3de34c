"""Pruning of a thread: selects the checkpoints that are needed, and deletes the others with their data."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.postgres import Connection

# Newest first. ``replayed`` are the delta channels whose value a checkpoint does not hold itself: it is that
# of an ancestor with the writes since. LangGraph counts these writes in the metadata.
LINEAGE_SQL: Final = """
WITH delta AS (
    SELECT DISTINCT jsonb_object_keys(metadata -> 'counters_since_delta_snapshot') AS channel
    FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_ns = ''
)
SELECT checkpoint_id, parent_checkpoint_id AS parent_id, ARRAY(
    SELECT channel FROM delta
    WHERE checkpoint -> 'channel_versions' ? channel
      AND NOT checkpoint -> 'channel_values' ? channel
      AND NOT EXISTS (
          SELECT FROM checkpoint_blobs AS stored
          WHERE stored.thread_id = checkpoints.thread_id AND stored.checkpoint_ns = ''
            AND stored.channel = delta.channel
            AND stored.version = checkpoint -> 'channel_versions' ->> delta.channel
            AND stored.type <> 'empty')
) AS replayed
FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_ns = ''
ORDER BY checkpoint_id DESC
"""

# A subgraph's call has a namespace of its own, with its task's id after a colon, and names the checkpoint it
# was called from. A subgraph that keeps state between calls has no colon, and stays.
CALLS_SQL: Final = """
SELECT DISTINCT checkpoint_ns FROM checkpoints
WHERE thread_id = %(thread)s AND checkpoint_ns LIKE '%%:%%'
  AND metadata -> 'parents' ->> '' = ANY(%(deleted)s)
"""

# The size of the rows, without indexes.
SIZE_SQL: Final = """
SELECT (SELECT coalesce(sum(pg_column_size(c)), 0) FROM checkpoints AS c
        WHERE thread_id = %(thread)s AND (checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)
                                          OR checkpoint_ns = ANY(%(calls)s)))
     + (SELECT coalesce(sum(pg_column_size(w)), 0) FROM checkpoint_writes AS w
        WHERE thread_id = %(thread)s AND (checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)
                                          OR checkpoint_ns = ANY(%(calls)s)))
     + (SELECT coalesce(sum(pg_column_size(b)), 0) FROM checkpoint_blobs AS b
        WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)) AS bytes
"""

# Values that only these checkpoints refer to. Each is looked up by its key: a join would be planned from the
# size of an average thread.
VALUES_SQL: Final = """
SELECT unused.channel, unused.version, stored.bytes FROM (
    SELECT named.key AS channel, named.value AS version
    FROM checkpoints CROSS JOIN LATERAL jsonb_each_text(checkpoint -> 'channel_versions') AS named
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)
    EXCEPT
    SELECT named.key, named.value
    FROM checkpoints CROSS JOIN LATERAL jsonb_each_text(checkpoint -> 'channel_versions') AS named
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id <> ALL(%(deleted)s)
) AS unused CROSS JOIN LATERAL (
    SELECT pg_column_size(checkpoint_blobs) AS bytes FROM checkpoint_blobs
    WHERE thread_id = %(thread)s AND checkpoint_ns = ''
      AND channel = unused.channel AND version = unused.version
    LIMIT 1
) AS stored
"""

DELETE_SQL: Final = (
    # The checkpoints, and the writes of their steps.
    """DELETE FROM checkpoint_writes
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)""",
    """DELETE FROM checkpoints
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)""",
    # The subgraph calls they made.
    "DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
    "DELETE FROM checkpoint_blobs WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
    "DELETE FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
    # A checkpoint whose parent was deleted becomes the first of the thread.
    """UPDATE checkpoints SET parent_checkpoint_id = NULL
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND parent_checkpoint_id = ANY(%(deleted)s)
      AND checkpoint_id <> ALL(%(deleted)s)""",
)

DELETE_VALUES_SQL: Final = """
DELETE FROM checkpoint_blobs
WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND channel = %(channel)s AND version = ANY(%(versions)s)
"""


@dataclass(frozen=True, slots=True)
class Lineage:
    """A checkpoint, its parent, and the delta channels that are rebuilt from its ancestors."""

    checkpoint_id: str
    parent_id: str | None
    replayed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Garbage:
    """What is deleted together with some checkpoints of a thread.

    Attributes:
        thread_id: The thread.
        checkpoints: Ids of the checkpoints.
        calls: Namespaces of the subgraph calls they made.
        values: Versions of values that no other checkpoint refers to, by channel.
        bytes: The size of all of it.
    """

    thread_id: str
    checkpoints: Sequence[str]
    calls: Sequence[str]
    values: dict[str, list[str]]
    bytes: int


async def list_lineage(connection: Connection, thread_id: str) -> list[Lineage]:
    """Return a thread's checkpoints, newest first."""
    cursor = await connection.execute(LINEAGE_SQL, {"thread": thread_id})
    return [Lineage(**row) for row in await cursor.fetchall()]


def select_retained(checkpoints: Sequence[Lineage], keep: int) -> set[str]:
    """Return the ids of the ``keep`` newest checkpoints and of all that they are rebuilt from.

    Args:
        checkpoints: Newest first.
        keep: At least 1, because a run continues from the latest checkpoint.
    """
    by_id = {checkpoint.checkpoint_id: checkpoint for checkpoint in checkpoints}
    retained: set[str] = set()
    for checkpoint in checkpoints[:keep]:
        retained.add(checkpoint.checkpoint_id)
        for channel in checkpoint.replayed:
            retained.update(_iterate_ancestors(by_id, checkpoint, channel))
    return retained


def _iterate_ancestors(by_id: Mapping[str, Lineage], checkpoint: Lineage, channel: str) -> Iterator[str]:
    """Yield ancestors up to and including the nearest one that holds the channel's value."""
    parent = by_id.get(checkpoint.parent_id or "")
    while parent:
        yield parent.checkpoint_id
        if channel not in parent.replayed:
            return
        parent = by_id.get(parent.parent_id or "")


async def collect_garbage(connection: Connection, thread_id: str, checkpoints: Sequence[str]) -> Garbage:
    """Find what would be deleted together with these checkpoints, without changing anything."""
    parameters = {"thread": thread_id, "deleted": list(checkpoints)}
    rows = await (await connection.execute(CALLS_SQL, parameters)).fetchall()
    calls = [row["checkpoint_ns"] for row in rows]
    # Not prepared: a generic plan searches the whole array for every row.
    cursor = await connection.execute(SIZE_SQL, {**parameters, "calls": calls}, prepare=False)
    row = await cursor.fetchone()
    size = int(row["bytes"]) if row else 0
    values: dict[str, list[str]] = defaultdict(list)
    for value in await (await connection.execute(VALUES_SQL, parameters, prepare=False)).fetchall():
        values[value["channel"]].append(value["version"])
        size += value["bytes"]
    return Garbage(thread_id, checkpoints, calls, values, size)


async def delete_garbage(connection: Connection, garbage: Garbage) -> None:
    """Delete it, within the caller's transaction."""
    parameters = {
        "thread": garbage.thread_id,
        "deleted": list(garbage.checkpoints),
        "calls": list(garbage.calls),
    }
    for statement in DELETE_SQL:
        await connection.execute(statement, parameters, prepare=False)
    for channel, versions in garbage.values.items():
        await connection.execute(
            DELETE_VALUES_SQL,
            {"thread": garbage.thread_id, "channel": channel, "versions": versions},
            prepare=False,
        )
