"""One pass over all threads: what the policies no longer keep goes, in small transactions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from checkpoints.retention.kept import kept, lineage
from checkpoints.retention.policy import Policies, Policy
from checkpoints.retention.prune import garbage, remove
from checkpoints.retention.threads import Thread, threads_page
from core.logging import get_logger
from core.postgres import Pool

log = get_logger(__name__)

# Names "this product's retention" among advisory locks.
LOCK_ID = 0x76_65_6E_74_72_65_74
# Of the transaction, not of the session: behind a pooler a session is anyone's.
LOCK_SQL = "SELECT pg_try_advisory_xact_lock(%s) AS mine"

# What a whole thread takes; indexes aside.
THREAD_SIZE_SQL = """
SELECT (SELECT coalesce(sum(pg_column_size(c)), 0) FROM checkpoints AS c WHERE thread_id = %(thread)s)
     + (SELECT coalesce(sum(pg_column_size(w)), 0) FROM checkpoint_writes AS w WHERE thread_id = %(thread)s)
     + (SELECT coalesce(sum(pg_column_size(b)), 0) FROM checkpoint_blobs AS b WHERE thread_id = %(thread)s)
       AS bytes
"""

# Since its latest step, as it is now.
IDLE_SQL = """
SELECT now() - (checkpoint ->> 'ts')::timestamptz AS idle FROM checkpoints
WHERE thread_id = %s AND checkpoint_ns = '' ORDER BY checkpoint_id DESC LIMIT 1
"""

# Most checkpoints that go in one transaction.
MOST_CHECKPOINTS = 1_000

Erase: TypeAlias = Callable[[AsyncConnection[DictRow], str], Awaitable[object]]


@dataclass(slots=True)
class SweepLine:
    """What went, or would go, of the threads of a graph.

    Attributes:
        graph: The graph; empty where a thread's metadata names none.
        policy: The policy as it is written.
        threads: Threads looked at.
        erased: Threads that went as a whole.
        pruned: Threads that lost checkpoints.
        spared: Idle threads that stayed, as they wait for a person.
        checkpoints: Checkpoints that went, of both kinds of threads.
        bytes: What they took, with their writes and values; indexes aside.
    """

    graph: str
    policy: str
    threads: int = 0
    erased: int = 0
    pruned: int = 0
    spared: int = 0
    checkpoints: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        complete: False when another replica was sweeping, so that this one left it to that.
        lines: A line for each graph.
    """

    complete: bool = True
    lines: dict[str, SweepLine] = field(default_factory=dict)


class _Taken(Exception):
    """Raise when another replica is sweeping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweeper:
    pool: Pool
    policies: Policies
    erase: Erase
    grace: timedelta
    batch_size: int
    dry_run: bool
    busy: Callable[[str], bool]

    async def page(self, after: str) -> list[Thread]:
        async with self._turn() as connection:
            return await threads_page(connection, after=after, limit=self.batch_size)

    async def apply(self, thread: Thread, policy: Policy, line: SweepLine) -> None:
        line.threads += 1
        if thread.idle is None or thread.idle < self.grace or self.busy(thread.thread_id):
            # A run may be at work on it, here or on another replica.
            return
        if policy.delete_after and thread.idle >= policy.delete_after:
            if thread.waits:
                line.spared += 1
            else:
                await self._erase(thread, policy.delete_after, line)
                return
        if policy.keep and thread.checkpoints > policy.keep:
            await self._prune(thread.thread_id, policy.keep, line)

    async def _erase(self, thread: Thread, after: timedelta, line: SweepLine) -> None:
        async with self._turn() as connection:
            now = await (await connection.execute(IDLE_SQL, (thread.thread_id,))).fetchone()
            if now is None or now["idle"] < after:
                # Someone wrote to it, or erased it, since the page was read.
                return
            sized = await connection.execute(THREAD_SIZE_SQL, {"thread": thread.thread_id})
            row = await sized.fetchone()
            if not self.dry_run:
                await self.erase(connection, thread.thread_id)
        line.erased += 1
        line.checkpoints += thread.checkpoints
        line.bytes += int(row["bytes"]) if row else 0

    async def _prune(self, thread_id: str, keep: int, line: SweepLine) -> None:
        removed = 0
        while True:
            async with self._turn() as connection:
                known = await lineage(connection, thread_id)
                stay = kept(known, keep)
                gone = [entry.checkpoint_id for entry in known if entry.checkpoint_id not in stay]
                # Oldest first, so that a sweep that is cut off leaves no hole in the history.
                chunk = gone if self.dry_run else gone[-MOST_CHECKPOINTS:]
                if chunk:
                    found = await garbage(connection, thread_id, chunk)
                    if not self.dry_run:
                        await remove(connection, found)
                    removed += len(chunk)
                    line.bytes += found.bytes
            if len(chunk) == len(gone):
                break
        line.pruned += bool(removed)
        line.checkpoints += removed

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A short transaction that no other replica's sweep is in."""
        async with self.pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(LOCK_SQL, (LOCK_ID,))).fetchone()
            if not (row and row["mine"]):
                raise _Taken
            yield connection


async def sweep(
    pool: Pool,
    policies: Policies,
    *,
    erase: Erase,
    grace: timedelta,
    batch_size: int,
    dry_run: bool = False,
    busy: Callable[[str], bool] = lambda _: False,
) -> Sweep:
    """Carry the policies out once.

    The latest checkpoint of a thread always stays while the thread does, with the writes of the step it is
    in and everything it is read from: a question that waits for a person, or a run that stopped between two
    steps, goes on as if nothing had been done.

    Args:
        pool: Connections; one is used at a time.
        policies: What is kept.
        erase: Takes a whole thread out, wherever something of it is kept, in the transaction it is given.
        grace: Threads with a checkpoint newer than this are left alone. More than a run may take.
        batch_size: Threads looked at in one query.
        dry_run: Find what would go, and change nothing.
        busy: Whether a thread has a run in progress on this replica.

    Returns:
        What went, or would go, by graph.

    Raises:
        psycopg.OperationalError: The database went away; what was done so far is done.
    """
    sweeper = _Sweeper(
        pool=pool,
        policies=policies,
        erase=erase,
        grace=grace,
        batch_size=batch_size,
        dry_run=dry_run,
        busy=busy,
    )
    result = Sweep()
    after = ""
    try:
        while page := await sweeper.page(after):
            for thread in page:
                policy = policies.of_graph(thread.graph)
                graph = thread.graph or ""
                line = result.lines.setdefault(graph, SweepLine(graph, policy.text))
                await sweeper.apply(thread, policy, line)
            after = page[-1].thread_id
            log.debug("retention_progress", after=after, dry_run=dry_run)
    except _Taken:
        result.complete = False
    return result
