"""Reads of checkpoints, and changes to whole threads and runs.

A read borrows a connection for one statement and returns it before anything is deserialised. No statement
joins two large sets of a thread's rows: such a join would be planned from the size of an average thread, and
would read a long one from end to end.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from langgraph.checkpoint.postgres.base import SELECT_PENDING_SENDS_SQL, SELECT_SQL
from psycopg.rows import DictRow
from psycopg_pool import PoolClosed, PoolTimeout

from core.postgres import Pool

# How often a statement is tried if its connection breaks or another transaction gets in its way.
MAX_ATTEMPTS: Final = 3
# Checkpoints of a listing that are in memory at a time.
PAGE_SIZE: Final = 100
# Checkpoints of copied threads share their ids, so the thread and the namespace tell them apart.
ORDER_SQL: Final = " ORDER BY checkpoint_id DESC, thread_id DESC, checkpoint_ns DESC LIMIT %s"
AFTER_SQL: Final = "(checkpoint_id, thread_id, checkpoint_ns) < (%s, %s, %s)"
# Checkpoints older than this version have their pending sends among their parent's writes.
SENDS_VERSION: Final = 4

# Checkpoints with their values and pending writes, looked up by whole keys; callers add WHERE and ORDER BY.
CHECKPOINTS_SQL: Final = """
SELECT thread_id, checkpoint, checkpoint_ns, checkpoint_id, parent_checkpoint_id, metadata,
       (SELECT array_agg(ARRAY[named.key::bytea, stored.type::bytea, stored.blob])
        FROM jsonb_each_text(checkpoint -> 'channel_versions') AS named
        CROSS JOIN LATERAL (
            SELECT type, blob FROM checkpoint_blobs
            WHERE checkpoint_blobs.thread_id = checkpoints.thread_id
              AND checkpoint_blobs.checkpoint_ns = checkpoints.checkpoint_ns
              AND channel = named.key AND version = named.value
            LIMIT 1
        ) AS stored) AS channel_values,
       (SELECT array_agg(ARRAY[task_id::bytea, channel::bytea, type::bytea, blob,
                               convert_to(task_path, 'UTF8'), idx::text::bytea])
        FROM checkpoint_writes
        WHERE checkpoint_writes.thread_id = checkpoints.thread_id
          AND checkpoint_writes.checkpoint_ns = checkpoints.checkpoint_ns
          AND checkpoint_writes.checkpoint_id = checkpoints.checkpoint_id) AS pending_writes
FROM checkpoints """
LATEST_SQL: Final = "WHERE thread_id = %s AND checkpoint_ns = %s ORDER BY checkpoint_id DESC LIMIT 1"
BY_ID_SQL: Final = "WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s"

# Each change is one statement, so that nobody sees half of it.
DELETE_THREAD_SQL: Final = """
WITH deleted_writes AS (DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s),
     deleted_blobs AS (DELETE FROM checkpoint_blobs WHERE thread_id = %(thread)s)
DELETE FROM checkpoints WHERE thread_id = %(thread)s
"""

# A thread is copied as a whole, because a delta channel is rebuilt from the writes of all its ancestors. Rows
# that the target already has are kept.
COPY_THREAD_SQL: Final = """
WITH copied_blobs AS (
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(target)s, checkpoint_ns, channel, version, type, blob
    FROM checkpoint_blobs WHERE thread_id = %(source)s
    ON CONFLICT DO NOTHING
), copied_writes AS (
    INSERT INTO checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM checkpoint_writes WHERE thread_id = %(source)s
    ON CONFLICT DO NOTHING
)
INSERT INTO checkpoints
    (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
FROM checkpoints WHERE thread_id = %(source)s
ON CONFLICT DO NOTHING
"""

# Deletes the checkpoints with their writes, and the blobs that no other checkpoint of the same thread and
# namespace refers to.
DELETE_RUNS_SQL: Final = """
WITH deleted AS (
    DELETE FROM checkpoints WHERE metadata ->> 'run_id' = ANY(%(runs)s)
    RETURNING thread_id, checkpoint_ns, checkpoint_id, checkpoint -> 'channel_versions' AS versions
), deleted_writes AS (
    DELETE FROM checkpoint_writes USING deleted
    WHERE checkpoint_writes.thread_id = deleted.thread_id
      AND checkpoint_writes.checkpoint_ns = deleted.checkpoint_ns
      AND checkpoint_writes.checkpoint_id = deleted.checkpoint_id
), released AS (
    SELECT thread_id, checkpoint_ns, key AS channel, value AS version
    FROM deleted CROSS JOIN LATERAL jsonb_each_text(versions)
), referenced AS (
    SELECT kept.thread_id, kept.checkpoint_ns, key AS channel, value AS version
    FROM (SELECT DISTINCT thread_id, checkpoint_ns FROM deleted) AS affected
    JOIN checkpoints AS kept USING (thread_id, checkpoint_ns)
    CROSS JOIN LATERAL jsonb_each_text(kept.checkpoint -> 'channel_versions')
    WHERE kept.metadata ->> 'run_id' IS NULL OR kept.metadata ->> 'run_id' <> ALL(%(runs)s)
), garbage AS (
    SELECT * FROM released EXCEPT SELECT * FROM referenced
)
DELETE FROM checkpoint_blobs USING garbage
WHERE checkpoint_blobs.thread_id = garbage.thread_id
  AND checkpoint_blobs.checkpoint_ns = garbage.checkpoint_ns
  AND checkpoint_blobs.channel = garbage.channel
  AND checkpoint_blobs.version = garbage.version
"""

Result = TypeVar("Result")


async def retry(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat an idempotent attempt if its connection breaks or another transaction gets in its way.

    A pool that lends no connection is not asked again: the attempt has already waited for it.
    """
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return await attempt()
        except (PoolTimeout, PoolClosed):
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if error.sqlstate and error.sqlstate[:2] not in ("08", "40", "57"):
                raise
    return await attempt()


async def fetch(pool: Pool, query: str, parameters: Sequence[Any] | dict[str, Any]) -> list[DictRow]:
    """Return the rows of a query.

    Raises:
        psycopg.OperationalError: The database is unavailable.
        psycopg_pool.PoolTimeout: No connection became free in time.
    """

    async def attempt() -> list[DictRow]:
        async with pool.connection() as connection:
            cursor = await connection.execute(query.encode(), parameters, binary=True)
            return await cursor.fetchall()

    return await retry(attempt)


async def fetch_pages(
    pool: Pool, where: str, parameters: Sequence[Any], limit: int | None
) -> AsyncIterator[list[DictRow]]:
    """Yield checkpoints with their blobs and writes, newest first, in pages; no page holds a connection.

    Args:
        pool: Where to read.
        where: ``WHERE ...``, or empty.
        parameters: The condition's parameters.
        limit: The most rows of all pages together; None for all there are.
    """
    remaining = limit
    after: tuple[str, ...] = ()
    while remaining is None or remaining > 0:
        size = PAGE_SIZE if remaining is None else min(PAGE_SIZE, remaining)
        condition = where
        if after:
            condition = f"{where} AND {AFTER_SQL}" if where else f"WHERE {AFTER_SQL}"
        rows = await fetch(pool, SELECT_SQL + condition + ORDER_SQL, (*parameters, *after, size))
        if rows:
            yield rows
        if len(rows) < size:
            return
        after = tuple(rows[-1][column] for column in ("checkpoint_id", "thread_id", "checkpoint_ns"))
        remaining = None if remaining is None else remaining - len(rows)


async def fetch_pending_sends(
    pool: Pool, rows: Sequence[DictRow]
) -> list[tuple[DictRow, list[tuple[bytes, bytes]]]]:
    """Return the pending sends that old checkpoints among the rows have in their parents' writes."""
    children_by_thread: dict[str, list[DictRow]] = defaultdict(list)
    for row in rows:
        if row["checkpoint"]["v"] < SENDS_VERSION and row["parent_checkpoint_id"]:
            children_by_thread[row["thread_id"]].append(row)
    pending = []
    for thread_id, children in children_by_thread.items():
        ids = [row["parent_checkpoint_id"] for row in children]
        sends = {
            row["checkpoint_id"]: row["sends"]
            for row in await fetch(pool, SELECT_PENDING_SENDS_SQL, (thread_id, ids))
        }
        pending += [
            (row, sends[row["parent_checkpoint_id"]])
            for row in children
            if row["parent_checkpoint_id"] in sends
        ]
    return pending
