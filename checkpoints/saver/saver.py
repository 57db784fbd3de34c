"""The checkpointer: the stock saver's tables and format, with group commit and without its single lock."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    copy_checkpoint,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row

from checkpoints.migrations import migrate
from checkpoints.pool import connect
from checkpoints.saver.delta_history import DeltaHistorySaver
from checkpoints.saver.queries import (
    BY_ID_SQL,
    LATEST_SQL,
    QUERIES,
    fetch,
    fetch_pages,
    retry,
)
from checkpoints.saver.rows import (
    LARGE_BYTES,
    build_checkpoint_rows,
    build_write_rows,
    is_large,
    is_replacing,
    join_rows,
)
from checkpoints.saver.step_writes import StepWrites
from checkpoints.saver.writer import GroupWriter, WriteFailure
from core.metrics import CommitMeter
from core.postgres import Pool


@dataclass(slots=True)
class _Latest:
    """The latest checkpoint of a thread, while a run that has the thread to itself begins.

    Attributes:
        thread_id: The thread.
        reads: How often it will be read.
        is_known: Whether it was read.
        found: The checkpoint; ``None``: there is none.
    """

    thread_id: str
    reads: int
    is_known: bool
    found: CheckpointTuple | None = None


_latest: ContextVar[_Latest | None] = ContextVar("latest_checkpoint", default=None)


def expect_reads(thread_id: str, reads: int, *, is_new: bool) -> None:
    """Have the next reads of a thread's latest checkpoint in this task share one query.

    Args:
        thread_id: A thread to which nobody else writes meanwhile.
        reads: How many there will be, before the first write.
        is_new: Whether it is known to have no checkpoint, so that there is no query.
    """
    _latest.set(_Latest(thread_id, reads, is_known=is_new))


class GroupCommitSaver(DeltaHistorySaver):
    """A saver that commits the concurrent writes of all threads together.

    It and the stock saver read each other's threads. ``aput`` returns when its transaction has committed,
    with the writes of its step's tasks in it. Each read borrows a connection of its own.

    Args:
        pool: Connections for reads.
        writer: Commits the writes.
        serde: Serialises the values of channels.
    """

    SELECT_SQL = QUERIES["select_checkpoints"].decode() + " "

    def __init__(self, pool: Pool, writer: GroupWriter, serde: JsonPlusSerializer) -> None:
        super().__init__(pool, serde=serde)
        self._pool = pool
        self._writer = writer
        self._step_writes = StepWrites(writer)

    @property
    def last_failure(self) -> WriteFailure | None:
        """The failure of the last commit; None: it succeeded, or there was none yet."""
        return self._writer.last_failure

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint. See :meth:`GroupWriter.write` for errors."""
        configurable = config["configurable"]
        values = checkpoint["channel_values"]
        kept = await self._step_writes.take(configurable["thread_id"])
        await self._writer.write(
            configurable["thread_id"],
            lambda: join_rows(
                [*kept, build_checkpoint_rows(self.serde, config, checkpoint, metadata, new_versions)]
            ),
            large=is_large([values[channel] for channel in new_versions if channel in values]),
        )
        return {
            "configurable": {
                "thread_id": configurable["thread_id"],
                "checkpoint_ns": configurable["checkpoint_ns"],
                "checkpoint_id": checkpoint["id"],
            }
        }

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Save a task's writes. See :meth:`GroupWriter.write` for errors.

        What a task ends with, and what is large, is committed when this returns. Other writes are committed
        with the checkpoint of their step, or a moment later where none follows.
        """
        thread_id, large = config["configurable"]["thread_id"], is_large([value for _, value in writes])
        if large or is_replacing(writes):
            await self._writer.write(
                thread_id,
                lambda: build_write_rows(self.serde, config, writes, task_id, task_path),
                large=large,
            )
        else:
            self._step_writes.keep(
                thread_id, build_write_rows(self.serde, config, writes, task_id, task_path)
            )

    async def settle(self, thread_id: str) -> None:
        """Wait until everything that tasks wrote on a thread is committed."""
        await self._step_writes.settle(thread_id)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a thread's latest checkpoint, or the one with the given id."""
        configurable = config["configurable"]
        await self._step_writes.settle(configurable["thread_id"])
        parameters = [str(configurable["thread_id"]), configurable.get("checkpoint_ns", "")]
        if checkpoint_id := get_checkpoint_id(config):
            return await self._read(BY_ID_SQL, [*parameters, checkpoint_id])
        latest = _latest.get()
        if latest is None or not latest.reads or parameters != [latest.thread_id, ""]:
            return await self._read(LATEST_SQL, parameters)
        latest.reads -= 1
        if not latest.is_known:
            latest.found, latest.is_known = await self._read(LATEST_SQL, parameters), True
        # LangGraph changes the versions of what it is given.
        return latest.found and latest.found._replace(checkpoint=copy_checkpoint(latest.found.checkpoint))

    async def _read(self, where: str, parameters: Sequence[str]) -> CheckpointTuple | None:
        rows = await fetch(self._pool, self.SELECT_SQL + where, parameters)
        return await self._load_checkpoint_tuple(rows[0]) if rows else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - the base class's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first. A slow consumer holds no connection."""
        await (
            self._step_writes.settle(config["configurable"]["thread_id"])
            if config
            else self._step_writes.settle_all()
        )
        where, parameters = self._search_where(config, filter, before)
        async for rows in fetch_pages(self._pool, where, parameters, limit):
            for row in rows:
                yield await self._load_checkpoint_tuple(row)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return the writes and snapshots from which the channels' values are rebuilt."""
        await self._step_writes.settle(config["configurable"]["thread_id"])
        return await retry(
            lambda: super(GroupCommitSaver, self).aget_delta_channel_history(config=config, channels=channels)
        )

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread with all its namespaces."""
        self.forget(thread_id)
        await self._change("delete_thread", {"thread": str(thread_id)})
        # A concurrent read may have cached the thread again.
        self.forget(thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, with the writes and blobs that nothing else needs.

        Do not delete a run of a thread that continues and has delta channels: later values are built on it.
        """
        if run_ids:
            await self._change("delete_runs", {"runs": [str(run_id) for run_id in run_ids]})

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with its whole history, under the same checkpoint ids."""
        await self._change("copy_thread", {"source": str(source_thread_id), "target": str(target_thread_id)})

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Prune threads as the stock saver does, after the writes that are queued."""
        await self.flush()
        await retry(lambda: super(GroupCommitSaver, self).aprune(thread_ids, strategy=strategy))

    @property
    def queued(self) -> int:
        """The number of writes that wait for a commit."""
        return self._writer.queued

    async def flush(self) -> None:
        """Wait until every queued write has been committed or has failed. Call this before deleting rows."""
        await self._step_writes.settle_all()
        await self._writer.flush()

    async def close(self) -> None:
        """Commit what is queued, and refuse new writes."""
        await self._step_writes.settle_all()
        await self._writer.close()

    async def _change(self, query: str, parameters: dict[str, Any]) -> None:
        # A write whose caller was cancelled may still be queued, and must not follow a deletion.
        await self.flush()

        async def attempt() -> None:
            async with self._pool.connection() as connection:
                await connection.execute(QUERIES[query], parameters)

        await retry(attempt)

    async def _load_checkpoint_tuple(self, value: DictRow) -> CheckpointTuple:
        blobs = [entry[2] for entry in value["channel_values"] or ()]
        blobs += [entry[3] for entry in value["pending_writes"] or ()]
        if sum(len(blob) for blob in blobs if blob) > LARGE_BYTES:
            return await asyncio.to_thread(self._load, value)
        return self._load(value)

    def _load(self, row: DictRow) -> CheckpointTuple:
        key = {"thread_id": row["thread_id"], "checkpoint_ns": row["checkpoint_ns"]}
        parent = row["parent_checkpoint_id"]
        checkpoint = row["checkpoint"]
        values = (checkpoint.get("channel_values") or {}) | self._load_blobs(row["channel_values"])
        return CheckpointTuple(
            config={"configurable": {**key, "checkpoint_id": row["checkpoint_id"]}},
            checkpoint=cast("Checkpoint", checkpoint | {"channel_values": values}),
            metadata=row["metadata"],
            parent_config={"configurable": {**key, "checkpoint_id": parent}} if parent else None,
            pending_writes=self._load_writes(row["pending_writes"]),
        )

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:  # noqa: ARG002
        """Open a cursor for the stock saver's own methods, without its lock."""
        async with (
            self._pool.connection() as connection,
            connection.cursor(binary=True, row_factory=dict_row) as cursor,
        ):
            yield cursor


def build_serializer() -> JsonPlusSerializer:
    """Return the strict serializer: what it reads cannot make the service import or call what it names."""
    return JsonPlusSerializer(allowed_msgpack_modules=None)


@asynccontextmanager
async def open_saver(pool: Pool, meter: CommitMeter | None = None) -> AsyncIterator[GroupCommitSaver]:
    """Open a saver whose tables are up to date. Queued writes are committed before it closes.

    Deserialisation is strict (:func:`build_serializer`). States therefore hold only messages and plain JSON
    values.

    Args:
        pool: The database.
        meter: Counts commits.

    Raises:
        psycopg.OperationalError: The database is unavailable.
    """
    writer = GroupWriter(lambda: connect(pool), patience_seconds=pool.timeout, meter=meter)
    saver = GroupCommitSaver(pool, writer, build_serializer())
    try:
        await migrate(pool, saver)
        yield saver
    finally:
        await saver.close()
