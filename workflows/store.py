"""The table of workflow runs: what was requested, how each run stands, and what it waits for.

A run's progress is in its thread's checkpoints only. The table tells which threads have to continue: queued
runs, waiting runs whose time has come, and runs whose process died. ``sql/`` explains the columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from core import postgres
from core.postgres import Connection, Pool, read_queries

Status: TypeAlias = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
FinalStatus: TypeAlias = Literal["succeeded", "failed", "cancelled"]

FINAL_STATUSES: Final[frozenset[Status]] = frozenset({"succeeded", "failed", "cancelled"})
MAX_PENDING_SIGNALS: Final = 1_000
QUERIES: Final = read_queries(Path(__file__).parent / "queries.sql")
# The position is the version: append, never edit or reorder.
MIGRATIONS: Final = ((Path(__file__).parent / "sql" / "0001_runs.sql").read_bytes(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to queue; see the columns of the same names."""

    id: str
    tenant: str
    user_id: str
    client_id: str
    name: str
    definition: Mapping[str, JsonValue]
    input: Mapping[str, JsonValue]
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A row of the table without the columns that may be large."""

    id: str
    tenant: str
    user_id: str
    client_id: str
    name: str
    priority: int
    status: Status
    error: dict[str, JsonValue] | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    wake_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether only a recovery can make the run continue."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunSummary):
    """A whole row."""

    definition: dict[str, JsonValue]
    input: dict[str, JsonValue]
    cancel_requested: bool
    recovery: dict[str, Any] | None
    turn: int
    attempt: int
    interruptions: int


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that was sent to a run; its payload may be null."""

    payload: JsonValue


class WorkflowStore:
    """Reads and writes the table of runs.

    Args:
        pool: Connections that autocommit and return rows as dicts.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def get(self, tenant: str, run_id: str) -> Run | None:
        """Return a run of the tenant; None: there is none with that id."""
        row = await self._fetch_one("get", tenant=tenant, id=run_id)
        return Run(**row) if row else None

    async def load(self, run_id: str) -> Run | None:
        """Return a run together with all signals of which its senders were told that it got them."""
        row = await self._fetch_one("load", id=run_id)
        return Run(**row) if row else None

    async def list(
        self, tenant: str, *, status: Status | None, name: str | None, limit: int, offset: int
    ) -> Sequence[RunSummary]:
        """Return the tenant's runs, the latest first."""
        rows = await self._fetch_all(
            "list", tenant=tenant, status=status, name=name, limit=limit, offset=offset
        )
        return [RunSummary(**row) for row in rows]

    async def count(self, tenant: str) -> dict[Status, int]:
        """Return how many of the tenant's runs are queued, running and waiting."""
        return {row["status"]: row["runs"] for row in await self._fetch_all("count", tenant=tenant)}

    async def list_due(self, *, limit: int) -> dict[str, int]:
        """Return the turns of runs that have to begin or to continue, by id: tenants take turns."""
        return {row["id"]: row["turn"] for row in await self._fetch_all("list_due", limit=limit)}

    async def begin(self, run_id: str, *, attempt: int | None, was_cut_off: bool) -> int | None:
        """Record that a run begins or continues.

        Args:
            run_id: The run.
            attempt: Its latest attempt as the caller knows it; None: whichever it is.
            was_cut_off: Whether the process died that executed it last.

        Returns:
            The new attempt; None: the run has ended, is to be cancelled, or somebody else has begun it.
        """
        row = await self._fetch_one("begin", id=run_id, attempt=attempt, was_cut_off=was_cut_off)
        return row["attempt"] if row else None

    async def release(self, run_id: str, attempt: int, *, is_cancelled: bool) -> Status | None:
        """Leave a run that was stopped on its way to the next job, or end it if it is cancelled.

        Returns:
            Its status after that; None: it is somebody else's.
        """
        values = {"id": run_id, "attempt": attempt, "is_cancelled": is_cancelled}
        return _read_status(await self._fetch_one("release", **values))

    async def mark_waiting(
        self, run_id: str, attempt: int, *, wake_at: float | None, events: str | None = None
    ) -> Status | None:
        """Record that a run waits for a signal, a person or a time (seconds since the epoch).

        Args:
            run_id: The run.
            attempt: Its latest attempt.
            wake_at: When it continues by itself; None: it does not.
            events: What becomes true with that, as ``outbox.add_all`` takes it; None: nothing.

        Returns:
            Its status: ``waiting``, or ``cancelled`` if that was requested. None: it is somebody else's.
        """
        values = {"id": run_id, "attempt": attempt, "wake_at": wake_at, "events": events}
        return _read_status(await self._fetch_one("mark_waiting", **values))

    async def mark_ended(
        self, run_id: str, attempt: int, status: FinalStatus, error: Mapping[str, Any] | None
    ) -> Status | None:
        """Record that a run has ended, and return its status; None: it is somebody else's."""
        described = None if error is None else Jsonb(error)
        return _read_status(
            await self._fetch_one("mark_ended", id=run_id, attempt=attempt, status=status, error=described)
        )

    async def cancel(self, tenant: str, run_id: str) -> Run | None:
        """Cancel a run; one in progress stops at its next step. None: it has ended, or does not exist."""
        row = await self._fetch_one("cancel", tenant=tenant, id=run_id)
        return Run(**row) if row else None

    async def take_signal(self, run_id: str, interrupt_id: str, name: str) -> Signal | None:
        """Return the signal of an interrupt: the one it took before, or the oldest free one of the name."""
        row = await self._fetch_one(
            "get_signal", id=run_id, interrupt_id=interrupt_id
        ) or await self._fetch_one("take_signal", id=run_id, interrupt_id=interrupt_id, name=name)
        return Signal(**row) if row else None

    async def _fetch_one(self, query: str, **values: Any) -> DictRow | None:
        async with self.pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchone()

    async def _fetch_all(self, query: str, **values: Any) -> Sequence[DictRow]:
        async with self.pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchall()


# What is written together with a job, in the caller's transaction.


async def add_run(connection: Connection, run: NewRun, *, limit: int) -> tuple[Run, int | None]:
    """Queue a run.

    Returns:
        The run, and how many of the tenant's queued runs are as urgent, at most ``limit``. None: the
        client's id names a run that was queued before, which is returned.
    """
    values = {name: getattr(run, name) for name in NewRun.__slots__}
    values |= {"definition": Jsonb(run.definition), "input": Jsonb(run.input), "limit": limit}
    # If the known run is erased between the two statements, the insert succeeds in the next round.
    while not (row := await (await connection.execute(QUERIES["add"], values)).fetchone()):
        known = await connection.execute(QUERIES["get_by_client_id"], values)
        if found := await known.fetchone():
            return Run(**found), None
    ahead = row.pop("ahead")
    return Run(**row), ahead


async def add_signal(connection: Connection, tenant: str, run_id: str, name: str, payload: JsonValue) -> bool:
    """Store a signal for a run.

    Returns:
        False if the run has ended, or has :data:`MAX_PENDING_SIGNALS` that it did not wait for.
    """
    values = {"tenant": tenant, "id": run_id, "name": name, "payload": Jsonb(payload)}
    row = await (await connection.execute(QUERIES["lock_for_signal"], values)).fetchone()
    if row is None or row["pending"] >= MAX_PENDING_SIGNALS:
        return False
    await connection.execute(QUERIES["add_signal"], values)
    return True


async def recover_run(connection: Connection, run: Run, recovery: Mapping[str, Any] | None) -> bool:
    """Queue a run that has ended or waits; return whether it still did.

    Args:
        connection: Of the caller's transaction.
        run: The run as the recovery found it.
        recovery: ``checkpoint_id``, ``update`` and ``goto``; None: the run resumes at its latest checkpoint.
    """
    values = {"id": run.id, "attempt": run.attempt, "recovery": recovery and Jsonb(recovery)}
    return await (await connection.execute(QUERIES["recover"], values)).fetchone() is not None


async def erase_run(connection: Connection, run_id: str) -> None:
    """Delete a run and its signals in the caller's transaction."""
    await connection.execute(QUERIES["erase"], {"id": run_id})


async def migrate(pool: Pool) -> None:
    """Bring the schema ``workflows`` up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, "workflows", MIGRATIONS)


def _read_status(row: DictRow | None) -> Status | None:
    return row["status"] if row else None
