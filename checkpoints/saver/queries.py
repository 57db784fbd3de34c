"""Queries of the saver.

A read borrows a connection for one statement and returns it before anything is deserialised. No statement
joins two large sets of a thread's rows: such a join would be planned from the size of an average thread, and
would read a long one from end to end.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from langgraph.checkpoint.postgres.base import SELECT_SQL
from psycopg.rows import DictRow
from psycopg_pool import PoolClosed, PoolTimeout

from checkpoints.migrations import SQL_FOLDER
from core.postgres import Pool, read_queries

# How often a statement is tried if its connection breaks or another transaction gets in its way.
MAX_ATTEMPTS: Final = 3
# Checkpoints of a listing that are in memory at a time.
PAGE_SIZE: Final = 100
# Checkpoints of copied threads share their ids, so the thread and the namespace tell them apart.
ORDER_SQL: Final = " ORDER BY checkpoint_id DESC, thread_id DESC, checkpoint_ns DESC LIMIT %s"
AFTER_SQL: Final = "(checkpoint_id, thread_id, checkpoint_ns) < (%s, %s, %s)"

QUERIES: Final = read_queries(SQL_FOLDER / "saver.sql")
# Conditions of ``select_checkpoints``.
LATEST_SQL: Final = "WHERE thread_id = %s AND checkpoint_ns = %s ORDER BY checkpoint_id DESC LIMIT 1"
BY_ID_SQL: Final = "WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s"

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
