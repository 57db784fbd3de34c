"""The saver: the stock saver's tables, format and reads, with group commit and without its one lock."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row

from checkpoints.history import RememberedHistory
from checkpoints.migrations import migrate, serialised
from checkpoints.pool import connect
from checkpoints.saver.maintenance import COPY_THREAD_SQL, DELETE_RUNS_SQL, DELETE_THREAD_SQL
from checkpoints.saver.reader import again, fetch, pages, pending_sends
from checkpoints.saver.serialisation import LARGE_BYTES, checkpoint_rows, is_large, writes_rows
from checkpoints.saver.writer import GroupWriter
from core.metrics import CommitMeter
from core.postgres import Pool

LATEST_SQL = "WHERE thread_id = %s AND checkpoint_ns = %s ORDER BY checkpoint_id DESC LIMIT 1"
ONE_SQL = "WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s"


class GroupCommitSaver(RememberedHistory):
    """Threads written by the stock saver are read by this one, and the other way round.

    ``aput`` and ``aput_writes`` return when their transaction has committed; the transaction holds what other
    threads wrote at the same time. Reads borrow a connection each.

    Args:
        pool: Where reads get their connections.
        writer: What commits the writes.
        serde: Of channels' values.
    """

    def __init__(self, pool: Pool, writer: GroupWriter, serde: JsonPlusSerializer) -> None:
        super().__init__(pool, serde=serde)
        self._pool = pool
        self._writer = writer

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint; see :meth:`GroupWriter.write` for the errors."""
        configurable = config["configurable"]
        values = checkpoint["channel_values"]
        await self._writer.write(
            configurable["thread_id"],
            lambda: checkpoint_rows(self.serde, config, checkpoint, metadata, new_versions),
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
        """Save a task's writes; see :meth:`GroupWriter.write` for the errors."""
        await self._writer.write(
            config["configurable"]["thread_id"],
            lambda: writes_rows(self.serde, config, writes, task_id, task_path),
            large=is_large([value for _, value in writes]),
        )

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A thread's latest checkpoint, or the one that is named."""
        configurable = config["configurable"]
        parameters = [str(configurable["thread_id"]), configurable.get("checkpoint_ns", "")]
        where = LATEST_SQL
        if checkpoint_id := get_checkpoint_id(config):
            where = ONE_SQL
            parameters.append(checkpoint_id)
        rows = await fetch(self._pool, self.SELECT_SQL + where, parameters)
        async for found in self._loaded(rows):
            return found
        return None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - the base class's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first. However slowly they are taken, no connection waits for it."""
        where, parameters = self._search_where(config, filter, before)
        async for rows in pages(self._pool, where, parameters, limit):
            async for found in self._loaded(rows):
                yield found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What the channels' values are rebuilt from."""
        return await again(
            lambda: super(GroupCommitSaver, self).aget_delta_channel_history(config=config, channels=channels)
        )

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread with all its namespaces."""
        self.forget(thread_id)
        await self._change(DELETE_THREAD_SQL, {"thread": str(thread_id)})
        # Who read it meanwhile has it again.
        self.forget(thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, with the writes and blobs nothing else needs.

        A thread with delta channels that lives on must not lose a run on which they are built.
        """
        if run_ids:
            await self._change(DELETE_RUNS_SQL, {"runs": [str(run_id) for run_id in run_ids]})

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with its whole history, under the same checkpoint ids."""
        await self._change(
            COPY_THREAD_SQL, {"source": str(source_thread_id), "target": str(target_thread_id)}
        )

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Prune threads as the stock saver does, once what was written to them before is there."""
        await self.settled()
        await again(lambda: super(GroupCommitSaver, self).aprune(thread_ids, strategy=strategy))

    @property
    def queued(self) -> int:
        """Writes that wait for a commit."""
        return self._writer.queued

    async def settled(self) -> None:
        """Wait until what is queued is written or given up; who deletes rows in other ways does so first."""
        await self._writer.settled()

    async def _change(self, statement: str, parameters: dict[str, Any]) -> None:
        # A write that was given up by its caller may still be queued: it must not come after a deletion.
        await self.settled()

        async def attempt() -> None:
            async with self._pool.connection() as connection:
                await connection.execute(statement.encode(), parameters)

        await again(attempt)

    async def _loaded(self, rows: Sequence[DictRow]) -> AsyncIterator[CheckpointTuple]:
        for row, sends in await pending_sends(self._pool, rows):
            row["channel_values"] = row["channel_values"] or []
            self._migrate_pending_sends(sends, row["checkpoint"], row["channel_values"])
        for row in rows:
            yield await self._load_checkpoint_tuple(row)

    async def _load_checkpoint_tuple(self, value: DictRow) -> CheckpointTuple:
        blobs = [entry[2] for entry in value["channel_values"] or ()]
        blobs += [entry[3] for entry in value["pending_writes"] or ()]
        if sum(len(blob) for blob in blobs if blob) > LARGE_BYTES:
            return await asyncio.to_thread(self._load, value)
        return self._load(value)

    def _load(self, row: DictRow) -> CheckpointTuple:
        place = {"thread_id": row["thread_id"], "checkpoint_ns": row["checkpoint_ns"]}
        parent = row["parent_checkpoint_id"]
        checkpoint = row["checkpoint"]
        values = (checkpoint.get("channel_values") or {}) | self._load_blobs(row["channel_values"])
        return CheckpointTuple(
            config={"configurable": {**place, "checkpoint_id": row["checkpoint_id"]}},
            checkpoint=cast("Checkpoint", checkpoint | {"channel_values": values}),
            metadata=row["metadata"],
            parent_config={"configurable": {**place, "checkpoint_id": parent}} if parent else None,
            pending_writes=self._load_writes(row["pending_writes"]),
        )

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:  # noqa: ARG002
        """What the stock saver's own methods run on, without its lock."""
        async with (
            self._pool.connection() as connection,
            connection.cursor(binary=True, row_factory=dict_row) as cursor,
        ):
            yield cursor


@asynccontextmanager
async def open_saver(pool: Pool, meter: CommitMeter | None = None) -> AsyncIterator[GroupCommitSaver]:
    """A saver over the pool, its tables made or migrated; what is queued is written before it closes.

    Deserialisation is strict: a row written by someone else cannot make the service import and call
    what it names. States therefore hold messages and plain JSON values only.

    Args:
        pool: The database.
        meter: Where commits are counted.

    Raises:
        psycopg.OperationalError: Postgres is away.
    """

    async def connection() -> AsyncConnection[DictRow]:
        return await connect(pool)

    writer = GroupWriter(connection, patience=pool.timeout, meter=meter)
    try:
        saver = GroupCommitSaver(pool, writer, JsonPlusSerializer(allowed_msgpack_modules=None))
        async with serialised(pool):
            await saver.setup()
            await migrate(pool)
        yield saver
    finally:
        await writer.close()
