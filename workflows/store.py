"""The table of workflow runs: what was requested, which service executes it, and what it waits for.

A run's progress is in its thread's checkpoints only. The table tells which threads have to continue: queued
runs, waiting runs whose time or signal has come, and runs whose service stopped extending its lease.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from core import postgres
from core.errors import ThreadBusy
from core.postgres import Connection, Pool

Status: TypeAlias = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
FinalStatus: TypeAlias = Literal["succeeded", "failed", "cancelled"]

FINAL_STATUSES: Final[frozenset[Status]] = frozenset({"succeeded", "failed", "cancelled"})
MAX_PENDING_SIGNALS: Final = 1_000
# The position is the version: append, never edit or reorder.
MIGRATIONS: Final = ((Path(__file__).parent / "sql" / "0001_runs.sql").read_bytes(),)

# Lists leave out the columns that may be large. psycopg cannot read an infinite leased_until.
SUMMARY_COLUMNS: Final = (
    "id, tenant, user_id, client_id, name, priority, status, error, created_at, started_at, ended_at, wake_at"
)
ALL_COLUMNS: Final = f"{SUMMARY_COLUMNS}, definition, input, cancel_requested, expired_leases"
RUN_COLUMNS: Final = ", ".join(f"run.{column}" for column in ALL_COLUMNS.split(", "))
LEASE: Final = "leased_by = %(service)s, leased_until = now() + %(seconds)s * interval '1 second'"
NO_LEASE: Final = "leased_by = '', leased_until = '-infinity'"
# True for the row of a run that this service executes.
IS_OURS: Final = "id = %(id)s AND leased_by = %(service)s AND status = 'running'"
DUE: Final = """
    ended_at IS NULL AND leased_until < now() AND (status <> 'waiting' OR wake_requested OR wake_at <= now())
"""

ADD_SQL: Final = f"""
INSERT INTO workflows.runs (id, tenant, user_id, client_id, name, definition, input, priority)
VALUES (%(id)s, %(tenant)s, %(user_id)s, %(client_id)s, %(name)s, %(definition)s, %(input)s, %(priority)s)
ON CONFLICT (tenant, client_id) WHERE client_id <> '' DO NOTHING
RETURNING {ALL_COLUMNS}
"""  # noqa: S608 - constants
GET_BY_CLIENT_ID_SQL: Final = f"SELECT {ALL_COLUMNS} FROM workflows.runs WHERE tenant = %s AND client_id = %s"  # noqa: S608 - constants
GET_SQL: Final = f"SELECT {ALL_COLUMNS} FROM workflows.runs WHERE tenant = %s AND id = %s"  # noqa: S608 - constants
GET_TENANT_SQL: Final = "SELECT tenant FROM workflows.runs WHERE id = %s"
LIST_SQL: Final = f"""
SELECT {SUMMARY_COLUMNS} FROM workflows.runs
WHERE tenant = %(tenant)s AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY created_at DESC, id LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 - constants
COUNT_SQL: Final = """
SELECT status, count(*) AS runs FROM workflows.runs
WHERE tenant = %s AND ended_at IS NULL GROUP BY status
"""
# Tenants take turns: each tenant's first run comes before any tenant's second. DUE is checked again on the
# locked rows, so that services that claim at the same time get different runs.
CLAIM_SQL: Final = f"""
WITH ranked AS (
    SELECT id, row_number() OVER (PARTITION BY tenant ORDER BY priority DESC, created_at) AS turn
    FROM workflows.runs WHERE {DUE}
), due AS (
    SELECT run.id, run.status = 'running' AS was_interrupted
    FROM ranked JOIN workflows.runs AS run USING (id)
    WHERE {DUE}
    ORDER BY ranked.turn, run.priority DESC, run.created_at LIMIT %(limit)s FOR UPDATE OF run SKIP LOCKED
)
UPDATE workflows.runs AS run
SET status = 'running', wake_requested = false, started_at = coalesce(started_at, now()),
    expired_leases = run.expired_leases + CASE WHEN run.leased_by <> '' THEN 1 ELSE 0 END, {LEASE}
FROM due WHERE run.id = due.id
RETURNING {RUN_COLUMNS}, run.started_at = now() AS is_new, due.was_interrupted
"""  # noqa: S608 - constants
CLAIM_ONE_SQL: Final = f"""
UPDATE workflows.runs AS run
SET status = 'running', ended_at = NULL, cancel_requested = false, wake_requested = false,
    expired_leases = 0, {LEASE}
WHERE tenant = %(tenant)s AND id = %(id)s AND status = ANY(%(statuses)s)
RETURNING {RUN_COLUMNS}
"""  # noqa: S608 - constants
# A run that is missing from the result belongs to another service now.
EXTEND_LEASES_SQL: Final = """
UPDATE workflows.runs SET leased_until = now() + %(seconds)s * interval '1 second'
WHERE leased_by = %(service)s AND status = 'running' AND id = ANY(%(ids)s)
RETURNING id, cancel_requested
"""
# A cancellation that came while the run was in progress takes effect here.
MARK_WAITING_SQL: Final = f"""
UPDATE workflows.runs
SET status = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'waiting' END,
    ended_at = CASE WHEN cancel_requested THEN now() END,
    wake_at = to_timestamp(%(wake_at)s), expired_leases = 0, error = NULL, {NO_LEASE}
WHERE {IS_OURS}
"""  # noqa: S608 - constants
MARK_ENDED_SQL: Final = f"""
UPDATE workflows.runs
SET status = %(status)s, error = %(error)s, ended_at = now(), wake_at = NULL, {NO_LEASE}
WHERE {IS_OURS}
"""  # noqa: S608 - constants
RELEASE_SQL: Final = f"""
UPDATE workflows.runs SET leased_by = '', leased_until = now() + %(seconds)s * interval '1 second'
WHERE {IS_OURS}
"""  # noqa: S608 - constants
# A claim clears wake_requested: setting it costs one look at the run and loses no signal.
RESTORE_SQL: Final = f"""
UPDATE workflows.runs
SET status = %(status)s, ended_at = %(ended_at)s, wake_requested = true, {NO_LEASE}
WHERE {IS_OURS}
"""  # noqa: S608 - constants
# A run that no service executes is cancelled at once; the service that executes one learns of it when it
# extends the lease.
CANCEL_SQL: Final = f"""
UPDATE workflows.runs
SET cancel_requested = true,
    status = CASE WHEN status = 'running' THEN status ELSE 'cancelled' END,
    ended_at = CASE WHEN status = 'running' THEN NULL ELSE now() END
WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('queued', 'running', 'waiting')
RETURNING {ALL_COLUMNS}
"""  # noqa: S608 - constants
# Locks the row first: a run that is about to wait either sees the signal or is woken by it.
REQUEST_WAKE_SQL: Final = """
UPDATE workflows.runs SET wake_requested = true
WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('queued', 'running', 'waiting')
RETURNING (SELECT count(*) FROM workflows.signals AS signal
           WHERE signal.run_id = runs.id AND signal.interrupt_id IS NULL) AS pending
"""
ADD_SIGNAL_SQL: Final = """
INSERT INTO workflows.signals (run_id, name, payload) VALUES (%(id)s, %(name)s, %(payload)s)
"""
GET_SIGNAL_SQL: Final = "SELECT payload FROM workflows.signals WHERE run_id = %s AND interrupt_id = %s"
TAKE_SIGNAL_SQL: Final = """
UPDATE workflows.signals SET interrupt_id = %(interrupt_id)s
WHERE id = (SELECT id FROM workflows.signals
            WHERE run_id = %(id)s AND name = %(name)s AND interrupt_id IS NULL ORDER BY id LIMIT 1)
RETURNING payload
"""
# Locks the row, so that no service starts the run meanwhile.
IS_LEASED_SQL: Final = """
SELECT id FROM (SELECT id, status, leased_until FROM workflows.runs WHERE id = %s FOR UPDATE) AS run
WHERE status = 'running' AND leased_until > now()
"""
ERASE_SQL: Final = "DELETE FROM workflows.runs WHERE id = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A row of the table without the columns that may be large (see ``sql/0001_runs.sql``)."""

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
    """A whole row.

    Attributes:
        is_new: Whether the run was claimed for the first time, so that its thread has no checkpoint.
        was_interrupted: Whether its previous service died or released it, perhaps in the middle of a step.
    """

    definition: dict[str, JsonValue]
    input: dict[str, JsonValue]
    cancel_requested: bool
    expired_leases: int
    is_new: bool = False
    was_interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that was sent to a run; its payload may be null."""

    payload: JsonValue


class WorkflowStore:
    """Reads and writes the table of runs.

    Args:
        pool: Connections that autocommit and return rows as dicts.
        service: The name of this process among those on the database.
        lease_seconds: How long a run belongs to this service unless the lease is extended.
    """

    def __init__(self, pool: Pool, *, service: str, lease_seconds: float) -> None:
        self._pool = pool
        self._lease = {"service": service, "seconds": lease_seconds}

    async def add(
        self,
        *,
        id: str,  # noqa: A002 - the column
        tenant: str,
        user_id: str,
        client_id: str,
        name: str,
        definition: Mapping[str, JsonValue],
        input: Mapping[str, JsonValue],  # noqa: A002 - the column
        priority: int,
    ) -> tuple[Run, bool]:
        """Queue a run.

        Returns:
            The run, and whether it is new: its client id may name a run that was queued before.
        """
        values = {
            "id": id,
            "tenant": tenant,
            "user_id": user_id,
            "client_id": client_id,
            "name": name,
            "definition": Jsonb(definition),
            "input": Jsonb(input),
            "priority": priority,
        }
        # If the known run is erased between the two statements, the insert succeeds in the next round.
        while not (row := await self._fetch_one(ADD_SQL, values)):
            if known := await self._fetch_one(GET_BY_CLIENT_ID_SQL, (tenant, client_id)):
                return Run(**known), False
        return Run(**row), True

    async def get(self, tenant: str, run_id: str) -> Run | None:
        """Return a run of the tenant; None: there is none with that id."""
        row = await self._fetch_one(GET_SQL, (tenant, run_id))
        return Run(**row) if row else None

    async def list(
        self, tenant: str, *, status: Status | None, name: str | None, limit: int, offset: int
    ) -> Sequence[RunSummary]:
        """Return the tenant's runs, the latest first."""
        values = {"tenant": tenant, "status": status, "name": name, "limit": limit, "offset": offset}
        return [RunSummary(**row) for row in await self._fetch_all(LIST_SQL, values)]

    async def count(self, tenant: str) -> dict[Status, int]:
        """Return how many of the tenant's runs are queued, running and waiting."""
        return {row["status"]: row["runs"] for row in await self._fetch_all(COUNT_SQL, (tenant,))}

    async def claim(self, *, limit: int) -> Sequence[Run]:
        """Lease due runs for this service: tenants in turn, each with its most urgent runs first."""
        rows = await self._fetch_all(CLAIM_SQL, {"limit": limit, **self._lease})
        return sorted((Run(**row) for row in rows), key=lambda run: (-run.priority, run.created_at))

    async def claim_one(self, tenant: str, run_id: str, statuses: Iterable[Status]) -> Run | None:
        """Lease a run for this service; None: it has none of these statuses."""
        values = {"tenant": tenant, "id": run_id, "statuses": list(statuses), **self._lease}
        row = await self._fetch_one(CLAIM_ONE_SQL, values)
        return Run(**row) if row else None

    async def extend_leases(self, ids: Sequence[str]) -> dict[str, bool]:
        """Extend the leases of runs.

        Returns:
            The runs that still belong to this service, and whether each is to be cancelled.
        """
        rows = await self._fetch_all(EXTEND_LEASES_SQL, {"ids": list(ids), **self._lease})
        return {row["id"]: row["cancel_requested"] for row in rows}

    async def mark_waiting(self, run_id: str, *, wake_at: float | None) -> None:
        """Record that a run waits for a signal, a person or a time (seconds since the epoch)."""
        await self._execute(MARK_WAITING_SQL, {"id": run_id, "wake_at": wake_at, **self._lease})

    async def mark_ended(self, run_id: str, status: FinalStatus, error: Mapping[str, Any] | None) -> bool:
        """Record that a run has ended, and return whether it has: it may belong to another service by now."""
        values = {"id": run_id, "status": status, "error": None if error is None else Jsonb(error)}
        return bool(await self._execute(MARK_ENDED_SQL, {**values, **self._lease}))

    async def release(self, run_id: str, *, pause: float) -> None:
        """Leave a run to the first service that claims it after ``pause`` seconds."""
        await self._execute(RELEASE_SQL, {**self._lease, "id": run_id, "seconds": pause})

    async def restore(self, before: RunSummary) -> None:
        """Put a claimed run back into the state it had before."""
        values = {"id": before.id, "status": before.status, "ended_at": before.ended_at}
        await self._execute(RESTORE_SQL, {**values, **self._lease})

    async def cancel(self, tenant: str, run_id: str) -> Run | None:
        """Cancel a run; one in progress stops at its next step. None: it has ended, or does not exist."""
        row = await self._fetch_one(CANCEL_SQL, {"tenant": tenant, "id": run_id})
        return Run(**row) if row else None

    async def add_signal(self, tenant: str, run_id: str, name: str, payload: JsonValue) -> bool:
        """Store a signal for a run and wake it.

        Returns:
            False if the run has ended, or has :data:`MAX_PENDING_SIGNALS` that it did not wait for.
        """
        values = {"tenant": tenant, "id": run_id, "name": name, "payload": Jsonb(payload)}
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(REQUEST_WAKE_SQL, values)).fetchone()
            if row is None or row["pending"] >= MAX_PENDING_SIGNALS:
                return False
            await connection.execute(ADD_SIGNAL_SQL, values)
        return True

    async def take_signal(self, run_id: str, interrupt_id: str, name: str) -> Signal | None:
        """Return the signal of an interrupt: the one it took before, or the oldest free one of the name."""
        row = await self._fetch_one(GET_SIGNAL_SQL, (run_id, interrupt_id)) or await self._fetch_one(
            TAKE_SIGNAL_SQL, {"id": run_id, "interrupt_id": interrupt_id, "name": name}
        )
        return Signal(**row) if row else None

    async def _fetch_one(self, statement: str, values: Mapping[str, Any] | Sequence[Any]) -> DictRow | None:
        async with self._pool.connection() as connection:
            return await (await connection.execute(statement.encode(), values)).fetchone()

    async def _fetch_all(
        self, statement: str, values: Mapping[str, Any] | Sequence[Any]
    ) -> Sequence[DictRow]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(statement.encode(), values)).fetchall()

    async def _execute(self, statement: str, values: Mapping[str, Any]) -> int:
        async with self._pool.connection() as connection:
            return (await connection.execute(statement.encode(), values)).rowcount


async def migrate(pool: Pool) -> None:
    """Bring the schema ``workflows`` up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, "workflows", MIGRATIONS)


async def erase_run(connection: Connection, run_id: str) -> None:
    """Delete a run and its signals in the caller's transaction.

    Raises:
        ThreadBusy: A service executes it.
    """
    if await (await connection.execute(IS_LEASED_SQL, (run_id,))).fetchone():
        raise ThreadBusy(f"workflow {run_id!r} is in progress; cancel it first", retry_after=1)
    await connection.execute(ERASE_SQL, (run_id,))


async def run_tenant(connection: Connection, run_id: str) -> str | None:
    """Return the tenant of a run; None: there is no run with that id."""
    row = await (await connection.execute(GET_TENANT_SQL, (run_id,))).fetchone()
    return str(row["tenant"]) if row else None
