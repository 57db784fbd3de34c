"""Reads: a connection is borrowed for a statement and given back before anything is deserialised."""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from langgraph.checkpoint.postgres.base import SELECT_PENDING_SENDS_SQL, SELECT_SQL
from psycopg.rows import DictRow
from psycopg_pool import PoolClosed, PoolTimeout

from core.postgres import Pool

# How often a statement is tried that lost its connection, or to another transaction.
ATTEMPTS = 3
# Checkpoints of a listing that are in memory at once.
PAGE = 100
# Where checkpoints of a listing have the same id, which those of a copied thread have, these tell them apart.
ORDER_SQL = " ORDER BY checkpoint_id DESC, thread_id DESC, checkpoint_ns DESC LIMIT %s"
AFTER_SQL = "(checkpoint_id, thread_id, checkpoint_ns) < (%s, %s, %s)"
# Checkpoints older than this version have their parent's pending sends in its writes.
SENDS_VERSION = 4

Result = TypeVar("Result")


async def again(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Try what may be repeated again when its connection died or another transaction was in its way.

    A pool without a connection to give is not asked again: it has waited already.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except (PoolTimeout, PoolClosed):
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if error.sqlstate and error.sqlstate[:2] not in ("08", "40", "57"):
                raise
    return await attempt()


async def fetch(pool: Pool, query: str, parameters: Sequence[Any] | dict[str, Any]) -> list[DictRow]:
    """The rows of a query.

    Raises:
        psycopg.OperationalError: Postgres is away.
        psycopg_pool.PoolTimeout: No connection came free in time.
    """

    async def attempt() -> list[DictRow]:
        async with pool.connection() as connection:
            cursor = await connection.execute(query.encode(), parameters, binary=True)
            return await cursor.fetchall()

    return await again(attempt)


async def pages(
    pool: Pool, where: str, parameters: Sequence[Any], limit: int | None
) -> AsyncIterator[list[DictRow]]:
    """Checkpoints with their blobs and writes, newest first, a page at a time; none holds a connection.

    Args:
        pool: Where to read.
        where: ``WHERE ...``, or empty.
        parameters: What the condition needs.
        limit: Most rows of all pages; ``None`` for all there are.
    """
    remaining = limit
    after: tuple[str, ...] = ()
    while remaining is None or remaining > 0:
        size = PAGE if remaining is None else min(PAGE, remaining)
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


async def pending_sends(
    pool: Pool, rows: Sequence[DictRow]
) -> list[tuple[DictRow, list[tuple[bytes, bytes]]]]:
    """What old checkpoints among the rows find in their parents' writes."""
    parents: dict[str, list[DictRow]] = defaultdict(list)
    for row in rows:
        if row["checkpoint"]["v"] < SENDS_VERSION and row["parent_checkpoint_id"]:
            parents[row["thread_id"]].append(row)
    found = []
    for thread_id, children in parents.items():
        ids = [row["parent_checkpoint_id"] for row in children]
        sends = {
            row["checkpoint_id"]: row["sends"]
            for row in await fetch(pool, SELECT_PENDING_SENDS_SQL, (thread_id, ids))
        }
        found += [
            (row, sends[row["parent_checkpoint_id"]])
            for row in children
            if row["parent_checkpoint_id"] in sends
        ]
    return found
