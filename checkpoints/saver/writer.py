"""Group commit: what all threads write at the same time goes to Postgres as one transaction.

One task takes whatever is queued and commits it while the next group gathers, so the group's size follows
the load: a lone writer waits for nobody, and many share one commit. Writes are taken in the order they came,
and a group is settled, well or badly, before the next is begun: that keeps the order within each thread.

Every statement is idempotent (the same rows under the same keys), so a group whose fate is unknown, because
its connection died, is simply written again.

The writer has a connection of its own beside the pool: readers that use up the pool do not hold up writes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Protocol

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from checkpoints.saver.serialisation import Rows
from checkpoints.saver.statements import BinaryArray, BinaryArrayDumper, Row, Table, group
from core.errors import DatabaseUnavailable
from core.logging import get_logger
from core.metrics import CommitMeter, NoCommitMeter
from core.tasks import cancel_and_wait

log = get_logger(__name__)

# A group, and what may wait for the next one. Beyond the latter, callers wait before they serialise.
GROUP_WRITES, GROUP_BYTES = 2_000, 8 * 1024 * 1024
QUEUE_WRITES, QUEUE_BYTES = 4_000, 32 * 1024 * 1024
# Large writes in the making, whose size is not known yet.
QUEUE_ENCODING = 16
# While more writes arrive with each turn of the event loop, the group waits at most so many turns.
GATHER_TURNS = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

# PostgreSQL, appendix A: what says nothing about the rows. Connection, rollback, lock, shutdown, disk.
_UNAVAILABLE_CLASSES = ("08", "40", "55", "57", "58")
# Of single states: disk full, too many connections, a standby, a prepared statement that a pooler mislaid.
_UNAVAILABLE_STATES = ("53100", "53300", "25006", "26000", "42P05")
# Waiting does not mend these soon: tell the callers.
_NOT_RETRIED_CLASSES = ("58",)
_NOT_RETRIED_STATES = ("53100",)


class Connect(Protocol):
    """How the writer gets a connection, now and after the one it had has died."""

    async def __call__(self) -> AsyncConnection[DictRow]:
        """Connect, or raise ``psycopg.OperationalError``."""


@dataclass(slots=True, eq=False)
class _Write:
    """What one caller waits for."""

    rows: Rows
    give_up_at: float
    done: asyncio.Future[None] = field(repr=False)

    def resolve(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class GroupWriter:
    """Commits writes in groups.

    Args:
        connect: Makes the writer's connection.
        patience: Seconds a write is tried again while Postgres is away, and the time limit of one attempt.
        meter: Where commits are counted.
    """

    def __init__(self, connect: Connect, *, patience: float, meter: CommitMeter | None = None) -> None:
        self._meter = meter or NoCommitMeter()
        self._connect = connect
        self._patience = patience
        self._connection: AsyncConnection[DictRow] | None = None
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Write] = deque()
        self._bytes = 0
        self._entering: deque[asyncio.Future[None]] = deque()
        self._encoding: dict[str, asyncio.Future[None]] = {}
        self._in_the_making = 0
        self._arrived = asyncio.Event()
        self._writing = False
        self._closing = False
        # Its own context: the task must not keep the first caller's tracing and request id.
        self._task = self._loop.create_task(self._run(), name="checkpoint-writer", context=Context())

    async def write(self, thread_id: str, encode: Callable[[], Rows], *, large: bool) -> None:
        """Write rows and return when they are committed.

        Args:
            thread_id: Writes of one thread are committed in the order of the calls.
            encode: Makes the rows; its errors are the caller's.
            large: Whether to encode in a worker thread.

        Raises:
            DatabaseUnavailable: Postgres stayed away; whether the rows are written is not known, and writing
                them again does no harm.
            psycopg.Error: Postgres refuses these rows.
        """
        if self._closing:
            raise DatabaseUnavailable("the service is stopping and writes no more", retry_after=5)
        if self._entering or self._is_full():
            await self._room()
        if large or thread_id in self._encoding:
            done = await self._encode_in_turn(thread_id, encode, large=large)
        else:
            done = self._enqueue(encode())
        await done

    @property
    def queued(self) -> int:
        """Writes that wait for a commit, or for room to."""
        return len(self._queue) + len(self._entering)

    async def settled(self) -> None:
        """Return when every write that was accepted before is committed or has failed."""
        await self.write("", lambda: Rows({}, 0), large=False)

    async def close(self) -> None:
        """Write what is queued, then close the connection. New writes are refused."""
        self._closing = True
        # What is under way may use its time up, and then what is queued behind it.
        with suppress(TimeoutError, DatabaseUnavailable):
            async with asyncio.timeout(2 * self._patience):
                while self._writing or self._queue or self._entering or self._encoding:
                    await self._enqueue(Rows({}, 0))
        await cancel_and_wait(self._task)
        self._fail(self._queue, RuntimeError("the saver was closed"))
        await self._disconnect()

    # Into the queue

    def _is_full(self) -> bool:
        return (
            len(self._queue) >= QUEUE_WRITES
            or self._bytes >= QUEUE_BYTES
            or self._in_the_making >= QUEUE_ENCODING
        )

    async def _room(self) -> None:
        """Wait for room, in the order of the calls."""
        turn = self._loop.create_future()
        self._entering.append(turn)
        self._admit()
        try:
            await turn
        finally:
            self._entering.remove(turn)
            self._admit()

    def _admit(self) -> None:
        # The one let in leaves the line itself when it runs: who comes meanwhile stands behind it.
        if self._entering and not self._is_full() and not self._entering[0].done():
            self._entering[0].set_result(None)

    async def _encode_in_turn(
        self, thread_id: str, encode: Callable[[], Rows], *, large: bool
    ) -> asyncio.Future[None]:
        """Encode off the loop, while later writes of the thread wait their turn."""
        before = self._encoding.get(thread_id)
        mine = self._encoding[thread_id] = self._loop.create_future()
        self._in_the_making += 1
        try:
            if before:
                await asyncio.wait((before,))
            return self._enqueue(await asyncio.to_thread(encode) if large else encode())
        finally:
            mine.set_result(None)
            if self._encoding[thread_id] is mine:
                del self._encoding[thread_id]
            self._in_the_making -= 1
            self._admit()

    def _enqueue(self, rows: Rows) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(_Write(rows, self._loop.time() + self._patience, done))
        self._bytes += rows.size
        self._arrived.set()
        return done

    # Out of the queue

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await self._gather()
            writes = self._take()
            self._writing = True
            try:
                await self._settle(writes)
            except BaseException as error:
                # Cancelled, or a bug of ours: nobody may be left waiting.
                self._fail(writes, error)
                if not isinstance(error, Exception):
                    raise
                log.exception("checkpoint_writer_failed")
            finally:
                self._writing = False

    async def _gather(self) -> None:
        """Let those in who are about to write: an idle loop's turn takes microseconds."""
        for _ in range(GATHER_TURNS):
            before = len(self._queue)
            await asyncio.sleep(0)
            if len(self._queue) == before:
                return

    def _take(self) -> list[_Write]:
        taken: list[_Write] = []
        size = 0
        while self._queue and len(taken) < GROUP_WRITES:
            size += self._queue[0].rows.size
            if taken and size > GROUP_BYTES:
                break
            taken.append(self._queue.popleft())
        self._bytes -= sum(write.rows.size for write in taken)
        if not self._queue:
            self._arrived.clear()
        self._admit()
        return taken

    async def _settle(self, writes: list[_Write]) -> None:
        """Commit the writes, or fail those that cannot be; return when none is open."""
        pause = FIRST_PAUSE
        while writes:
            try:
                async with asyncio.timeout(self._patience):
                    await self._commit(writes)
            except (psycopg.Error, TimeoutError, OSError) as error:
                if not _is_unavailable(error):
                    await self._part(writes, error)
                    return
                writes = await self._after_outage(writes, error)
                if writes:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
            else:
                for write in writes:
                    write.resolve()
                return

    async def _part(self, writes: list[_Write], error: Exception) -> None:
        """Postgres refuses something among the writes: halve them until it stands alone."""
        if len(writes) == 1:
            writes[0].fail(error)
            return
        half = len(writes) // 2
        await self._settle(writes[:half])
        await self._settle(writes[half:])

    async def _after_outage(self, writes: list[_Write], error: Exception) -> list[_Write]:
        """Fail the writes that have waited long enough; those to try again."""
        self._meter.failed()
        # Its state is not known, nor what statements it has prepared.
        await self._disconnect()
        now = self._loop.time()
        is_final = _is_final(error)
        over = [write for write in writes if is_final or write.give_up_at <= now]
        kept = [] if is_final else [write for write in writes if write.give_up_at > now]
        log.warning(
            "checkpoint_writes_failed", reason=str(error).strip(), given_up=len(over), tried_again=len(kept)
        )
        self._fail(over, error)
        return kept

    def _fail(self, writes: Iterable[_Write], error: BaseException) -> None:
        for write in writes:
            failure = DatabaseUnavailable(
                "the database does not answer; nothing was lost, try again", retry_after=2
            )
            failure.__cause__ = error
            write.fail(failure)

    # To Postgres

    async def _commit(self, writes: list[_Write]) -> None:
        rows = _merge([write.rows for write in writes])
        if not rows:
            return
        statement, parameters = group(rows)
        if self._connection is None or self._connection.closed:
            self._connection = await self._connect()
            self._connection.adapters.register_dumper(BinaryArray, BinaryArrayDumper)
        started = time.perf_counter()
        await self._connection.execute(statement, parameters)
        self._meter.committed(
            writes=len(writes),
            rows=sum(map(len, rows.values())),
            seconds=time.perf_counter() - started,
        )

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(psycopg.Error, OSError):
                await connection.close()


def _merge(parts: Iterable[Rows]) -> dict[Table, list[Row]]:
    """The rows of all, each key once where a statement may not touch it twice: what came last counts."""
    merged: dict[Table, list[Row]] = {}
    for part in parts:
        for table, rows in part.tables.items():
            merged.setdefault(table, []).extend(rows)
    if "checkpoints" in merged:
        merged["checkpoints"] = _last_by_key(merged["checkpoints"], range(3))
    if "replaced_writes" in merged:
        merged["replaced_writes"] = _last_by_key(merged["replaced_writes"], (0, 1, 2, 3, 5))
        replaced = {_key(row, (0, 1, 2, 3, 5)) for row in merged["replaced_writes"]}
        kept = merged.get("checkpoint_writes", [])
        merged["checkpoint_writes"] = [row for row in kept if _key(row, (0, 1, 2, 3, 5)) not in replaced]
    return {table: rows for table, rows in merged.items() if rows}


def _key(row: Row, columns: Iterable[int]) -> Row:
    return tuple(row[column] for column in columns)


def _last_by_key(rows: list[Row], columns: Iterable[int]) -> list[Row]:
    return list({_key(row, columns): row for row in rows}.values())


def _is_unavailable(error: Exception) -> bool:
    """Whether the failure says nothing about the rows themselves."""
    if not isinstance(error, psycopg.Error):
        return True
    state = error.sqlstate
    if state is None:
        # The driver's own: a lost or refused connection is operational; anything else is about the data.
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES


def _is_final(error: Exception) -> bool:
    state = (error.sqlstate if isinstance(error, psycopg.Error) else None) or ""
    return state[:2] in _NOT_RETRIED_CLASSES or state in _NOT_RETRIED_STATES
