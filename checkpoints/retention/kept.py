"""Which checkpoints of a thread stay: the newest ones, and what they are read from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import DictRow

# Newest first. Replayed are the delta channels that a checkpoint does not hold itself: their value is that
# of an ancestor with the writes since. LangGraph counts in the metadata for each of them.
LINEAGE_SQL = """
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


@dataclass(frozen=True, slots=True)
class Lineage:
    """A checkpoint, where it comes from, and the delta channels it has to be replayed for."""

    checkpoint_id: str
    parent_id: str | None
    replayed: Sequence[str] = ()


async def lineage(connection: AsyncConnection[DictRow], thread_id: str) -> list[Lineage]:
    """A thread's checkpoints, newest first."""
    cursor = await connection.execute(LINEAGE_SQL, {"thread": thread_id})
    return [Lineage(**row) for row in await cursor.fetchall()]


def kept(checkpoints: Sequence[Lineage], keep: int) -> set[str]:
    """The ids of the ``keep`` newest and of all that they are read from.

    Args:
        checkpoints: Newest first.
        keep: At least 1: the latest is what a run goes on from.
    """
    by_id = {checkpoint.checkpoint_id: checkpoint for checkpoint in checkpoints}
    stay: set[str] = set()
    for checkpoint in checkpoints[:keep]:
        stay.add(checkpoint.checkpoint_id)
        for channel in checkpoint.replayed:
            stay.update(_history(by_id, checkpoint, channel))
    return stay


def _history(by_id: Mapping[str, Lineage], checkpoint: Lineage, channel: str) -> Iterator[str]:
    """Back to the nearest ancestor that holds the channel's value, that one included."""
    parent = by_id.get(checkpoint.parent_id or "")
    while parent:
        yield parent.checkpoint_id
        if channel not in parent.replayed:
            return
        parent = by_id.get(parent.parent_id or "")
