"""Retention: the policies that say what is kept of a thread, and the sweep that applies them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Self, TypeAlias

from checkpoints.migrations import SQL_FOLDER
from checkpoints.pruning import collect_garbage, delete_garbage, list_lineage, select_retained
from core.errors import ThreadBusy
from core.logging import get_logger
from core.postgres import Connection, Pool, read_queries
from core.settings import RetentionSettings

log = get_logger(__name__)

# The advisory lock of the sweep; any fixed number will do. It is bound to the transaction, because behind a
# pooler a session is shared.
LOCK_ID: Final = 0x76_65_6E_74_72_65_74
LOCK_SQL: Final = "SELECT pg_try_advisory_xact_lock(%s) AS is_held"

_QUERIES: Final = read_queries(SQL_FOLDER / "retention.sql")
# The most checkpoints that one transaction deletes.
MAX_CHECKPOINTS: Final = 1_000

Erase: TypeAlias = Callable[[Connection, str], Awaitable[object]]

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What is kept of a graph's threads.

    Attributes:
        text: The policy as written in the settings, e.g. ``keep_last:20,delete_after:90d``.
        keep: How many of the newest checkpoints are kept; None keeps all.
        delete_after: Idle time after which a whole thread is deleted; None never deletes it.
    """

    text: str
    keep: int | None = None
    delete_after: timedelta | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a policy whose syntax the settings have validated."""
        keep, delete_after = None, None
        for part in text.split(","):
            name, _, value = part.partition(":")
            match name:
                case "keep_latest":
                    keep = 1
                case "keep_last":
                    keep = int(value)
                case "delete_after":
                    delete_after = timedelta(**{_UNITS[value[-1]]: int(value[:-1])})
        return cls(text, keep, delete_after)

    @property
    def keeps_everything(self) -> bool:
        """Whether nothing is ever deleted."""
        return self.keep is None and self.delete_after is None


@dataclass(frozen=True, slots=True)
class RetentionPolicies:
    """The policies of single graphs, and the default for all others."""

    default: RetentionPolicy
    per_graph: Mapping[str, RetentionPolicy]

    @classmethod
    def from_settings(cls, settings: RetentionSettings) -> Self:
        """Parse the policies of the settings."""
        return cls(
            RetentionPolicy.parse(settings.policy),
            {graph: RetentionPolicy.parse(text) for graph, text in settings.per_graph.items()},
        )

    def policy_for(self, graph: str | None) -> RetentionPolicy:
        """Return a graph's policy; None stands for a thread whose graph is unknown."""
        return self.per_graph.get(graph or "", self.default)

    @property
    def keep_everything(self) -> bool:
        """Whether no policy ever deletes anything."""
        return self.default.keeps_everything and all(
            policy.keeps_everything for policy in self.per_graph.values()
        )


@dataclass(slots=True)
class SweepCounts:
    """What a sweep deleted, or would delete, of one graph's threads.

    Attributes:
        graph: The graph; empty where a thread's metadata names none.
        policy: The policy as written in the settings.
        threads: Threads examined.
        erased: Threads deleted as a whole.
        pruned: Threads that lost checkpoints.
        spared: Idle threads that stay because they wait for a person.
        checkpoints: Checkpoints deleted from both kinds of threads.
        bytes: Size of these, with their writes and values, without indexes.
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
class SweepResult:
    """The result of a sweep.

    Attributes:
        complete: False if the sweep stopped because another replica was sweeping.
        lines: The counts by graph.
    """

    complete: bool = True
    lines: dict[str, SweepCounts] = field(default_factory=dict)


async def sweep(
    pool: Pool,
    policies: RetentionPolicies,
    *,
    erase: Erase,
    grace: timedelta,
    batch_size: int,
    dry_run: bool = False,
) -> SweepResult:
    """Apply the policies to all threads once, in small transactions.

    A thread that stays keeps its latest checkpoint, the writes of the step it is in, and everything they are
    rebuilt from. A thread that waits for a person, or a run that stopped between two steps, can therefore
    continue as if nothing had been deleted.

    Args:
        pool: Connections; one is used at a time.
        policies: What is kept.
        erase: Deletes a whole thread from everywhere, in the transaction it is given.
        grace: Threads with a checkpoint newer than this are left alone; must exceed the longest run.
        batch_size: Threads read by one query.
        dry_run: Only count what would be deleted.

    Raises:
        psycopg.OperationalError: The database became unavailable; what was deleted until then stays deleted.
    """
    sweeper = _Sweeper(pool=pool, erase=erase, grace=grace, batch_size=batch_size, dry_run=dry_run)
    result = SweepResult()
    after = ""
    try:
        while page := await sweeper.list_threads(after):
            for thread in page:
                policy = policies.policy_for(thread.graph)
                graph = thread.graph or ""
                counts = result.lines.setdefault(graph, SweepCounts(graph, policy.text))
                await sweeper.apply(thread, policy, counts)
            after = page[-1].thread_id
            log.debug("retention_progress", after=after, dry_run=dry_run)
    except _LockedError:
        result.complete = False
    return result


@dataclass(frozen=True, slots=True)
class _Thread:
    """A thread as the sweep sees it.

    Attributes:
        thread_id: The thread.
        graph: The graph of its latest run, if its metadata names one.
        idle: Time since its latest checkpoint; None if only subgraphs have checkpoints.
        waits: Whether it waits for a person.
        checkpoints: How many it has, without those of subgraphs.
    """

    thread_id: str
    graph: str | None
    idle: timedelta | None
    waits: bool
    checkpoints: int


class _LockedError(Exception):
    """Raised when another replica is sweeping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweeper:
    pool: Pool
    erase: Erase
    grace: timedelta
    batch_size: int
    dry_run: bool

    async def list_threads(self, after: str) -> list[_Thread]:
        async with self._transaction() as connection:
            parameters = {"after": after, "limit": self.batch_size}
            rows = await (await connection.execute(_QUERIES["list_threads"], parameters)).fetchall()
        return [_Thread(**row) for row in rows]

    async def apply(self, thread: _Thread, policy: RetentionPolicy, counts: SweepCounts) -> None:
        counts.threads += 1
        if thread.idle is None or thread.idle < self.grace:
            # A run may be working on it.
            return
        if policy.delete_after and thread.idle >= policy.delete_after:
            if thread.waits:
                counts.spared += 1
            else:
                await self._erase(thread, policy.delete_after, counts)
                return
        if policy.keep and thread.checkpoints > policy.keep:
            await self._prune(thread.thread_id, policy.keep, counts)

    async def _erase(self, thread: _Thread, after: timedelta, counts: SweepCounts) -> None:
        async with self._transaction() as connection:
            current = await (
                await connection.execute(_QUERIES["measure_idle_time"], (thread.thread_id,))
            ).fetchone()
            if current is None or current["idle"] < after:
                # The thread was continued or erased since the page was read.
                return
            size = await connection.execute(_QUERIES["measure_thread"], {"thread": thread.thread_id})
            row = await size.fetchone()
            if not self.dry_run:
                try:
                    await self.erase(connection, thread.thread_id)
                except ThreadBusy:
                    return
        counts.erased += 1
        counts.checkpoints += thread.checkpoints
        counts.bytes += int(row["bytes"]) if row else 0

    async def _prune(self, thread_id: str, keep: int, counts: SweepCounts) -> None:
        removed = 0
        while True:
            async with self._transaction() as connection:
                lineage = await list_lineage(connection, thread_id)
                retained = select_retained(lineage, keep)
                excess = [entry.checkpoint_id for entry in lineage if entry.checkpoint_id not in retained]
                # The oldest first, so that an interrupted sweep leaves no gap in the history.
                chunk = excess if self.dry_run else excess[-MAX_CHECKPOINTS:]
                if chunk:
                    garbage = await collect_garbage(connection, thread_id, chunk)
                    if not self.dry_run:
                        await delete_garbage(connection, garbage)
                    removed += len(chunk)
                    counts.bytes += garbage.bytes
            if len(chunk) == len(excess):
                break
        counts.pruned += bool(removed)
        counts.checkpoints += removed

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """Open a short transaction that holds the sweep's lock.

        Raises:
            _LockedError: Another replica holds it.
        """
        async with self.pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(LOCK_SQL, (LOCK_ID,))).fetchone()
            if not (row and row["is_held"]):
                raise _LockedError
            yield connection
