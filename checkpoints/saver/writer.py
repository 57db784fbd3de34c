"""Group commit: the concurrent writes of all threads go to Postgres in one transaction.

One task takes whatever is queued and commits it while the next group gathers, so the size of a group follows
the
load: a lone write waits for nobody, and many share one commit. Writes are taken in the order of their calls,
    and a group is finished, successfully or not, before the next begins. This preserves the order within each
    thread.

Every statement is idempotent (the same rows under the same keys). A group whose outcome is unknown, because
its connection broke, is therefore written again.

The writer has a connection of its own, so that readers who exhaust the pool do not hold up writes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import psycopg

from checkpoints.saver.rows import BinaryArray, BinaryArrayDumper, Claim, Rows, build_insert, merge_rows
from core.context import current_actor
from core.errors import ClaimLost, DatabaseUnavailable
from core.logging import get_logger
from core.metrics import CommitMeter, NoCommitMeter
from core.postgres import CLAIM_LOST, Connection, describe_outage
from core.tasks import cancel_and_wait

log = get_logger(__name__)

# Limits of one group.
GROUP_WRITES: Final = 2_000
GROUP_BYTES: Final = 8 * 1024 * 1024
# Limits of the queue; callers beyond them wait before they serialise.
QUEUE_WRITES: Final = 4_000
QUEUE_BYTES: Final = 32 * 1024 * 1024
# Large writes that are being encoded, whose size is not known yet.
QUEUE_ENCODING: Final = 16
# While each turn of the event loop brings more writes, a group waits at most this many turns.
GATHER_TURNS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.05
MAX_PAUSE_SECONDS: Final = 1.0

# PostgreSQL, appendix A: error classes that do not concern the rows. Connection, rollback, lock, shutdown,
# disk.
_UNAVAILABLE_CLASSES: Final = ("08", "40", "55", "57", "58")
# Single states: disk full, too many connections, a standby, a prepared statement that a pooler mislaid.
_UNAVAILABLE_STATES: Final = ("53100", "53300", "25006", "26000", "42P05")
# Failures that do not pass by themselves within seconds: the callers are told at once.
_NOT_RETRIED_CLASSES: Final = ("58",)
_NOT_RETRIED_STATES: Final = ("53100",)

Connect: TypeAlias = Callable[[], Awaitable[Connection]]


@dataclass(slots=True, eq=False)
class _Write:
    """A caller's rows, the run that writes them, if one does, and the future the caller waits for."""

    rows: Rows
    claim: Claim | None
    deadline: float
    done: asyncio.Future[None] = field(repr=False)

    def resolve(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True)
class WriteFailure:
    """A commit that failed for a reason of the database.

    Attributes:
        reason: The name of the error, e.g. ``DiskFull``.
        at: When, in seconds, monotonic.
    """

    reason: str
    at: float


class GroupWriter:
    """Commits writes in groups.

    Attributes:
        last_failure: The failure of the last commit; None: it succeeded, or there was none yet.

    Args:
        connect: Opens the writer's connection, and a new one after it broke.
        patience_seconds: How long a write is retried while the database is unavailable, and the time limit of
            one attempt.
        meter: Counts commits.
    """

    def __init__(
        self, connect: Connect, *, patience_seconds: float, meter: CommitMeter | None = None
    ) -> None:
        self.last_failure: WriteFailure | None = None
        self._meter = meter or NoCommitMeter()
        self._connect = connect
        self._patience_seconds = patience_seconds
        self._connection: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Write] = deque()
        self._bytes = 0
        self._entering: deque[asyncio.Future[None]] = deque()
        self._encoding: dict[str, asyncio.Future[None]] = {}
        self._encoding_count = 0
        self._arrived = asyncio.Event()
        self._writing = False
        self._closing = False
        # An empty context, because the task must not keep the first caller's tracing and request id.
        self._task = self._loop.create_task(self._run(), name="checkpoint-writer", context=Context())

    async def write(self, thread_id: str, encode: Callable[[], Rows], *, large: bool) -> None:
        """Write rows and return when they are committed.

        Args:
            thread_id: Writes of one thread are committed in the order of the calls.
            encode: Builds the rows; its errors are raised to the caller.
            large: Whether to encode in a worker thread.

        Raises:
            ClaimLost: The run that writes belongs to another replica now; nothing was written.
            DatabaseUnavailable: The database stayed unavailable. The rows may or may not have been written;
                writing them again does no harm.
            psycopg.Error: Postgres refused these rows.
            RuntimeError: The writer failed because of a bug.
        """
        if self._closing:
            raise DatabaseUnavailable("the service is stopping and accepts no more writes", retry_after=5)
        if self._entering or self._is_full():
            await self._wait_for_room()
        if large or thread_id in self._encoding:
            done = await self._encode_in_turn(thread_id, encode, large=large)
        else:
            done = self._enqueue(encode())
        await done

    @property
    def queued(self) -> int:
        """The number of writes that wait for a commit or for room in the queue."""
        return len(self._queue) + len(self._entering)

    async def flush(self) -> None:
        """Wait until every write accepted so far has been committed or has failed."""
        await self.write("", lambda: Rows({}, 0), large=False)

    async def close(self) -> None:
        """Commit what is queued, refuse new writes, and close the connection."""
        self._closing = True
        # The current group may use up its time, and then the group that is queued behind it.
        with suppress(TimeoutError, DatabaseUnavailable):
            async with asyncio.timeout(2 * self._patience_seconds):
                while self._writing or self._queue or self._entering or self._encoding:
                    await self._enqueue(Rows({}, 0))
        await cancel_and_wait(self._task)
        self._fail_unavailable(self._queue, RuntimeError("the saver was closed"))
        await self._disconnect()

    # Enqueueing

    def _is_full(self) -> bool:
        return (
            len(self._queue) >= QUEUE_WRITES
            or self._bytes >= QUEUE_BYTES
            or self._encoding_count >= QUEUE_ENCODING
        )

    async def _wait_for_room(self) -> None:
        """Wait for room in the queue, in the order of the calls."""
        turn = self._loop.create_future()
        self._entering.append(turn)
        self._admit()
        try:
            await turn
        finally:
            self._entering.remove(turn)
            self._admit()

    def _admit(self) -> None:
        # An admitted caller leaves the line only when it runs, so that later callers stay behind it.
        if self._entering and not self._is_full() and not self._entering[0].done():
            self._entering[0].set_result(None)

    async def _encode_in_turn(
        self, thread_id: str, encode: Callable[[], Rows], *, large: bool
    ) -> asyncio.Future[None]:
        """Encode in a worker thread, while later writes of the same thread wait for their turn."""
        previous = self._encoding.get(thread_id)
        current = self._encoding[thread_id] = self._loop.create_future()
        self._encoding_count += 1
        try:
            if previous:
                await asyncio.wait((previous,))
            return self._enqueue(await asyncio.to_thread(encode) if large else encode())
        finally:
            current.set_result(None)
            if self._encoding[thread_id] is current:
                del self._encoding[thread_id]
            self._encoding_count -= 1
            self._admit()

    def _enqueue(self, rows: Rows) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        actor = current_actor()
        claim = (actor.run_id, actor.attempt) if actor.attempt else None
        self._queue.append(_Write(rows, claim, self._loop.time() + self._patience_seconds, done))
        self._bytes += rows.size
        self._arrived.set()
        return done

    # Committing

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await self._gather()
            writes = self._take_group()
            self._writing = True
            try:
                await self._write_group(writes)
            except Exception as error:  # a bug: its callers must be told, and the writer must go on
                log.exception("checkpoint_writer_failed")
                self._fail_internal(writes, error)
            except BaseException as error:
                # The task was cancelled: no caller may be left waiting.
                self._fail_unavailable(writes, error)
                raise
            finally:
                self._writing = False

    async def _gather(self) -> None:
        """Wait for writes that are about to arrive; a turn of an idle event loop takes microseconds."""
        for _ in range(GATHER_TURNS):
            length = len(self._queue)
            await asyncio.sleep(0)
            if len(self._queue) == length:
                return

    def _take_group(self) -> list[_Write]:
        group: list[_Write] = []
        size = 0
        while self._queue and len(group) < GROUP_WRITES:
            size += self._queue[0].rows.size
            if group and size > GROUP_BYTES:
                break
            group.append(self._queue.popleft())
        self._bytes -= sum(write.rows.size for write in group)
        if not self._queue:
            self._arrived.clear()
        self._admit()
        return group

    async def _write_group(self, writes: list[_Write]) -> None:
        """Commit the writes, and fail those that cannot be committed."""
        pause = FIRST_PAUSE_SECONDS
        while writes:
            try:
                async with asyncio.timeout(self._patience_seconds):
                    await self._commit(writes)
            except (psycopg.Error, TimeoutError, OSError) as error:
                if not _is_unavailable(error):
                    await self._isolate(writes, error)
                    return
                writes = await self._give_up_expired(writes, error)
                if writes:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, MAX_PAUSE_SECONDS)
            else:
                for write in writes:
                    write.resolve()
                return

    async def _isolate(self, writes: list[_Write], error: Exception) -> None:
        """Halve a group that Postgres refused, until the refused write stands alone."""
        if len(writes) == 1:
            writes[0].fail(_explain_refusal(error))
            return
        half = len(writes) // 2
        await self._write_group(writes[:half])
        await self._write_group(writes[half:])

    async def _give_up_expired(self, writes: list[_Write], error: Exception) -> list[_Write]:
        """Fail the writes whose time is over, and return those to retry."""
        self._meter.record_failure()
        self.last_failure = WriteFailure(type(error).__name__, time.monotonic())
        # The connection's state is unknown, and so are its prepared statements.
        await self._disconnect()
        now = self._loop.time()
        is_final = _is_final(error)
        expired = [write for write in writes if is_final or write.deadline <= now]
        remaining = [] if is_final else [write for write in writes if write.deadline > now]
        log.warning(
            "checkpoint_writes_failed",
            reason=str(error).strip(),
            failed=len(expired),
            retried=len(remaining),
        )
        self._fail_unavailable(expired, error)
        return remaining

    def _fail_internal(self, writes: Iterable[_Write], error: Exception) -> None:
        for write in writes:
            failure = RuntimeError("the checkpoint writer failed because of a bug; see the log")
            failure.__cause__ = error
            write.fail(failure)

    def _fail_unavailable(self, writes: Iterable[_Write], error: BaseException) -> None:
        for write in writes:
            failure = DatabaseUnavailable(describe_outage(error), retry_after=2)
            failure.__cause__ = error
            write.fail(failure)

    async def _commit(self, writes: list[_Write]) -> None:
        rows = merge_rows([write.rows for write in writes])
        if not rows:
            return
        statement, parameters = build_insert(rows, {write.claim for write in writes if write.claim})
        if self._connection is None or self._connection.closed:
            self._connection = await self._connect()
            self._connection.adapters.register_dumper(BinaryArray, BinaryArrayDumper)
        started = time.perf_counter()
        await self._connection.execute(statement, parameters)
        self.last_failure = None
        self._meter.record_commit(
            writes=len(writes),
            rows=sum(map(len, rows.values())),
            seconds=time.perf_counter() - started,
        )

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(psycopg.Error, OSError):
                await connection.close()


def _explain_refusal(error: Exception) -> Exception:
    if isinstance(error, psycopg.Error) and error.sqlstate == CLAIM_LOST:
        return ClaimLost("another replica executes this run now; its answer is there", retry_after=1)
    return error


def _is_unavailable(error: Exception) -> bool:
    """Return whether the failure does not concern the rows themselves."""
    if not isinstance(error, psycopg.Error):
        return True
    state = error.sqlstate
    if state is None:
        # The driver's own error: operational if a connection was lost or refused, else about the data.
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES


def _is_final(error: Exception) -> bool:
    state = (error.sqlstate if isinstance(error, psycopg.Error) else None) or ""
    return state[:2] in _NOT_RETRIED_CLASSES or state in _NOT_RETRIED_STATES
