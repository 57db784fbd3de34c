"""A cache of delta channels' histories, so that a turn reads what is new and not the whole conversation."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite, writes_sort_key
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from psycopg.rows import DictRow

from checkpoints.saver.queries import QUERIES
from core.postgres import Pool

# Cached writes of all threads together (about one message each, some 2 KB), and how long they stay unused.
MAX_WRITES: Final = 20_000
MAX_IDLE_SECONDS: Final = 600
# Beyond this many steps, reading the whole history costs no more.
MAX_STEPS: Final = 500


@dataclass(frozen=True, slots=True)
class _Key:
    thread: str
    ns: str
    channel: str


@dataclass(slots=True)
class _CacheEntry:
    """The history of one channel at one checkpoint, which never changes."""

    checkpoint_id: str
    history: DeltaChannelHistory
    used_at: float

    @property
    def size(self) -> int:
        seed = self.history.get("seed")
        value = seed.value if isinstance(seed, _DeltaSnapshot) else seed
        return len(self.history["writes"]) + (len(value) if isinstance(value, list) else 1)


class DeltaHistorySaver(AsyncPostgresSaver):
    """A saver that reads only those writes of a delta channel that are newer than its last read.

    The ancestors of a checkpoint never change, so a cached history stays correct whichever replica wrote to
    the thread meanwhile. If it does not lie on the target's path (after a fork, another replica's snapshot,
    or a thread erased and begun again), the whole history is read. The cache is bounded by the number of
    writes and by idle time, and loses a thread that is erased through this saver.
    """

    def __init__(self, pool: Pool, *, serde: SerializerProtocol) -> None:
        super().__init__(pool, serde=serde)
        self._cache: OrderedDict[_Key, _CacheEntry] = OrderedDict()
        self._size = 0

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See :meth:`AsyncPostgresSaver.aget_delta_channel_history`."""
        target = config["configurable"].get("checkpoint_id")
        if not target:
            return await super().aget_delta_channel_history(config=config, channels=channels)
        histories: dict[str, DeltaChannelHistory] = {}
        for channel in channels:
            key = _Key(
                config["configurable"]["thread_id"], config["configurable"].get("checkpoint_ns", ""), channel
            )
            history = await self._extend_cached(key, target)
            if history is None:
                read = await super().aget_delta_channel_history(config=config, channels=[channel])
                history = read[channel]
            self._store(key, target, history)
            histories[channel] = _copy_history(history)
        return histories

    def forget(self, thread_id: str) -> None:
        """Drop a thread from the cache."""
        for key in [key for key in self._cache if key.thread == thread_id]:
            self._size -= self._cache.pop(key).size

    async def _extend_cached(self, key: _Key, target: str) -> DeltaChannelHistory | None:
        """Return the cached history with the writes since, or None if it must be read from the start."""
        cached = self._cache.get(key)
        if cached is None or cached.checkpoint_id == target:
            return cached.history if cached else None
        parameters = {
            "thread": key.thread,
            "ns": key.ns,
            "channel": key.channel,
            "target": target,
            "cached": cached.checkpoint_id,
            "max_steps": MAX_STEPS,
        }
        async with self._cursor() as cursor:
            await cursor.execute(QUERIES["list_new_writes"], parameters)
            rows = await cursor.fetchall()
        if not any(row["reached"] for row in rows) or any(row["stored"] for row in rows):
            return None
        writes = [*cached.history["writes"], *self._load_new_writes(key.channel, rows)]
        return {**cached.history, "writes": writes}

    def _load_new_writes(self, channel: str, rows: Sequence[DictRow]) -> list[PendingWrite]:
        writes = [row for row in rows if row["task_id"] is not None]
        writes.sort(
            key=lambda row: (-row["steps"], writes_sort_key(row["task_path"], row["task_id"], row["idx"]))
        )
        return [
            (row["task_id"], channel, self.serde.loads_typed((row["type"], row["blob"]))) for row in writes
        ]

    def _store(self, key: _Key, target: str, history: DeltaChannelHistory) -> None:
        now = monotonic()
        if previous := self._cache.pop(key, None):
            self._size -= previous.size
        self._cache[key] = _CacheEntry(target, history, now)
        self._size += self._cache[key].size
        while self._cache:
            oldest = next(iter(self._cache.values()))
            if self._size <= MAX_WRITES and now - oldest.used_at <= MAX_IDLE_SECONDS:
                break
            self._size -= self._cache.popitem(last=False)[1].size


def _copy_history(history: DeltaChannelHistory) -> DeltaChannelHistory:
    """Copy the lists, because a channel takes the seed's list as its value and changes it."""
    copy: DeltaChannelHistory = {"writes": list(history["writes"])}
    if "seed" in history:
        seed = history["seed"]
        if isinstance(seed, _DeltaSnapshot):
            seed = _DeltaSnapshot(list(seed.value) if isinstance(seed.value, list) else seed.value)
        elif isinstance(seed, list):
            seed = list(seed)
        copy["seed"] = seed
    return copy
