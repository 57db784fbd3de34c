"""What a replica remembers of long threads, so that a turn reads what is new and not the conversation."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite, writes_sort_key
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from psycopg.rows import DictRow

from core.postgres import Pool

# Writes (about one message each) remembered in all, some 2 KB each; and for how long after their last use.
MOST_WRITES = 20_000
IDLE_SECONDS = 600
# Farther back than this, reading all of it costs no more.
MOST_STEPS = 500

# Both queries look rows up by their whole key (``LATERAL ... LIMIT``). As joins they would be planned from
# the size of an average thread, and read a long one from end to end.

# The checkpoints from a target's parent back to one that is remembered, each with what it wrote. Reached
# says whether the walk got there; stored, whether one on the way keeps a full value.
NEW_WRITES_SQL = """
WITH RECURSIVE path AS (
    SELECT checkpoint_id, parent_checkpoint_id, checkpoint, 0 AS steps FROM checkpoints
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = %(target)s
    UNION ALL
    SELECT older.checkpoint_id, older.parent_checkpoint_id, older.checkpoint, steps + 1
    FROM path CROSS JOIN LATERAL (
        SELECT checkpoint_id, parent_checkpoint_id, checkpoint FROM checkpoints
        WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = path.parent_checkpoint_id
        LIMIT 1
    ) AS older
    WHERE path.checkpoint_id <> %(known)s AND steps < %(most)s
)
SELECT path.steps, path.checkpoint_id = %(known)s AS reached,
       path.checkpoint -> 'channel_values' ? %(channel)s OR stored.type IS NOT NULL AS stored,
       made.task_path, made.task_id, made.idx, made.type, made.blob
FROM path
LEFT JOIN LATERAL (
    SELECT type FROM checkpoint_blobs
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND channel = %(channel)s
      AND version = path.checkpoint -> 'channel_versions' ->> %(channel)s AND type <> 'empty'
    LIMIT 1
) AS stored ON true
LEFT JOIN LATERAL (
    SELECT task_path, task_id, idx, type, blob FROM checkpoint_writes
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = path.checkpoint_id
      AND channel = %(channel)s
    OFFSET 0
) AS made ON true
WHERE path.steps > 0
"""

# The saver's query for checkpoints with their values and pending writes; callers add WHERE and ORDER BY.
CHECKPOINTS_SQL = """
SELECT thread_id, checkpoint, checkpoint_ns, checkpoint_id, parent_checkpoint_id, metadata,
       (SELECT array_agg(ARRAY[named.key::bytea, held.type::bytea, held.blob])
        FROM jsonb_each_text(checkpoint -> 'channel_versions') AS named
        CROSS JOIN LATERAL (
            SELECT type, blob FROM checkpoint_blobs
            WHERE checkpoint_blobs.thread_id = checkpoints.thread_id
              AND checkpoint_blobs.checkpoint_ns = checkpoints.checkpoint_ns
              AND channel = named.key AND version = named.value
            LIMIT 1
        ) AS held) AS channel_values,
       (SELECT array_agg(ARRAY[task_id::bytea, channel::bytea, type::bytea, blob,
                               convert_to(task_path, 'UTF8'), idx::text::bytea])
        FROM checkpoint_writes
        WHERE checkpoint_writes.thread_id = checkpoints.thread_id
          AND checkpoint_writes.checkpoint_ns = checkpoints.checkpoint_ns
          AND checkpoint_writes.checkpoint_id = checkpoints.checkpoint_id) AS pending_writes
FROM checkpoints """


@dataclass(frozen=True, slots=True)
class _Key:
    thread: str
    ns: str
    channel: str


@dataclass(slots=True)
class _Remembered:
    """The history of one channel at one checkpoint. It cannot change: its ancestors are written."""

    checkpoint_id: str
    history: DeltaChannelHistory
    used: float

    @property
    def size(self) -> int:
        seed = self.history.get("seed")
        value = seed.value if isinstance(seed, _DeltaSnapshot) else seed
        return len(self.history["writes"]) + (len(value) if isinstance(value, list) else 1)


class RememberedHistory(AsyncPostgresSaver):
    """A saver that reads of a delta channel only what was written since this replica last read it.

    A checkpoint's ancestors never change, so what is remembered is right whichever
    replica wrote the thread meanwhile; where it does not lie on the target's path (a fork, another replica's
    snapshot, a thread erased and begun again), everything is read as before. Bounded by the number of writes
    and by idle time, and dropped when the thread is erased through this saver.
    """

    SELECT_SQL = CHECKPOINTS_SQL

    def __init__(self, pool: Pool, *, serde: SerializerProtocol) -> None:
        super().__init__(pool, serde=serde)
        self._kept: OrderedDict[_Key, _Remembered] = OrderedDict()
        self._size = 0

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As the saver's; see there."""
        target = config["configurable"].get("checkpoint_id")
        if not target:
            return await super().aget_delta_channel_history(config=config, channels=channels)
        found: dict[str, DeltaChannelHistory] = {}
        for channel in channels:
            key = _Key(
                config["configurable"]["thread_id"], config["configurable"].get("checkpoint_ns", ""), channel
            )
            history = await self._continued(key, target)
            if history is None:
                read = await super().aget_delta_channel_history(config=config, channels=[channel])
                history = read[channel]
            self._remember(key, target, history)
            found[channel] = _copied(history)
        return found

    def forget(self, thread_id: str) -> None:
        """Drop what is remembered of a thread."""
        for key in [key for key in self._kept if key.thread == thread_id]:
            self._size -= self._kept.pop(key).size

    async def _continued(self, key: _Key, target: str) -> DeltaChannelHistory | None:
        """What is remembered, and the writes since; ``None`` where it has to be read from the start."""
        known = self._kept.get(key)
        if known is None or known.checkpoint_id == target:
            return known.history if known else None
        parameters = {
            "thread": key.thread,
            "ns": key.ns,
            "channel": key.channel,
            "target": target,
            "known": known.checkpoint_id,
            "most": MOST_STEPS,
        }
        async with self._cursor() as cursor:
            await cursor.execute(NEW_WRITES_SQL, parameters)
            rows = await cursor.fetchall()
        if not any(row["reached"] for row in rows) or any(row["stored"] for row in rows):
            return None
        writes = [*known.history["writes"], *self._written(key.channel, rows)]
        return {**known.history, "writes": writes}

    def _written(self, channel: str, rows: Sequence[DictRow]) -> list[PendingWrite]:
        written = [row for row in rows if row["task_id"] is not None]
        written.sort(
            key=lambda row: (-row["steps"], writes_sort_key(row["task_path"], row["task_id"], row["idx"]))
        )
        return [
            (row["task_id"], channel, self.serde.loads_typed((row["type"], row["blob"]))) for row in written
        ]

    def _remember(self, key: _Key, target: str, history: DeltaChannelHistory) -> None:
        now = monotonic()
        if before := self._kept.pop(key, None):
            self._size -= before.size
        self._kept[key] = _Remembered(target, history, now)
        self._size += self._kept[key].size
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if self._size <= MOST_WRITES and now - oldest.used <= IDLE_SECONDS:
                break
            self._size -= self._kept.popitem(last=False)[1].size


def _copied(history: DeltaChannelHistory) -> DeltaChannelHistory:
    """Lists of the caller's own: a channel takes the seed's as its value."""
    copied: DeltaChannelHistory = {"writes": list(history["writes"])}
    if "seed" in history:
        seed = history["seed"]
        if isinstance(seed, _DeltaSnapshot):
            seed = _DeltaSnapshot(list(seed.value) if isinstance(seed.value, list) else seed.value)
        elif isinstance(seed, list):
            seed = list(seed)
        copied["seed"] = seed
    return copied
