"""The table of workflow runs: what was asked for, who runs it, and what it waits for.

What a run has done is in its thread's checkpoints and nowhere else. The table says which threads have to go
on: queued ones, those whose time or signal has come, and those whose service was not heard of any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from core.errors import ThreadBusy
from core.postgres import Connection, Pool

Status: TypeAlias = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
Ended: TypeAlias = Literal["succeeded", "failed", "cancelled"]

ENDED: Final[frozenset[Status]] = frozenset({"succeeded", "failed", "cancelled"})
MOST_SIGNALS: Final = 1_000

# Of runs in a list, without what may be large. The driver cannot read an infinite time.
COLUMNS: Final = (
    "id, tenant, user_id, client_id, name, priority, status, error, created_at, started_at, ended_at, wake_at"
)
ALL: Final = f"{COLUMNS}, definition, input, cancel_requested, lapses"
RUN_ALL: Final = ", ".join(f"run.{column}" for column in ALL.split(", "))

# Whoever asked first has begun it; the same id again finds that run.
ADD_SQL = f"""
INSERT INTO workflows.runs (id, tenant, user_id, client_id, name, definition, input, priority)
VALUES (%(id)s, %(tenant)s, %(user_id)s, %(client_id)s, %(name)s, %(definition)s, %(input)s, %(priority)s)
ON CONFLICT (tenant, client_id) WHERE client_id <> '' DO NOTHING
RETURNING {ALL}
"""  # noqa: S608 - constants
BY_CLIENT_ID_SQL = f"SELECT {ALL} FROM workflows.runs WHERE tenant = %s AND client_id = %s"  # noqa: S608 - constants
ONE_SQL = f"SELECT {ALL} FROM workflows.runs WHERE tenant = %s AND id = %s"  # noqa: S608 - constants
TENANT_SQL = "SELECT tenant FROM workflows.runs WHERE id = %s"
LIST_SQL = f"""
SELECT {COLUMNS} FROM workflows.runs
WHERE tenant = %(tenant)s AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY created_at DESC, id LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 - constants
COUNTS_SQL = """
SELECT status, count(*) AS runs FROM workflows.runs
WHERE tenant = %s AND ended_at IS NULL GROUP BY status
"""
DUE: Final = """
    ended_at IS NULL AND leased_until < now() AND (status <> 'waiting' OR poked OR wake_at <= now())
"""
# Tenants take turns: one's first comes before another's second, however many it has. What is due is looked at
# again where the rows are locked, so that services that claim at the same time are given different runs.
CLAIM_SQL = f"""
WITH ranked AS (
    SELECT id, row_number() OVER (PARTITION BY tenant ORDER BY priority DESC, created_at) AS turn
    FROM workflows.runs WHERE {DUE}
), due AS (
    SELECT run.id, run.status = 'running' AS broken_off
    FROM ranked JOIN workflows.runs AS run USING (id)
    WHERE {DUE}
    ORDER BY ranked.turn, run.priority DESC, run.created_at LIMIT %(limit)s FOR UPDATE OF run SKIP LOCKED
)
UPDATE workflows.runs AS run
SET status = 'running', poked = false, started_at = coalesce(started_at, now()),
    lapses = run.lapses + CASE WHEN run.leased_by <> '' THEN 1 ELSE 0 END,
    leased_by = %(service)s, leased_until = now() + %(seconds)s * interval '1 second'
FROM due WHERE run.id = due.id
RETURNING {RUN_ALL}, run.started_at = now() AS fresh, due.broken_off
"""  # noqa: S608 - constants
# One run, when it waits: a person answers it.
CLAIM_ONE_SQL = f"""
UPDATE workflows.runs AS run
SET status = 'running', poked = false,
    leased_by = %(service)s, leased_until = now() + %(seconds)s * interval '1 second'
WHERE tenant = %(tenant)s AND id = %(id)s AND status = 'waiting'
RETURNING {RUN_ALL}
"""  # noqa: S608 - constants
# A run that is not among the rows is another service's now.
HEARTBEAT_SQL = """
UPDATE workflows.runs SET leased_until = now() + %(seconds)s * interval '1 second'
WHERE leased_by = %(service)s AND status = 'running' AND id = ANY(%(ids)s)
RETURNING id, cancel_requested
"""
# Whoever cancelled it meanwhile found it running.
WAIT_SQL = """
UPDATE workflows.runs
SET status = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'waiting' END,
    ended_at = CASE WHEN cancel_requested THEN now() END,
    wake_at = to_timestamp(%(wake_at)s), lapses = 0, error = NULL,
    leased_by = '', leased_until = '-infinity'
WHERE id = %(id)s AND leased_by = %(service)s AND status = 'running'
"""
END_SQL = """
UPDATE workflows.runs
SET status = %(status)s, error = %(error)s, ended_at = now(), wake_at = NULL,
    leased_by = '', leased_until = '-infinity'
WHERE id = %(id)s AND leased_by = %(service)s AND status = 'running'
"""
RELEASE_SQL = """
UPDATE workflows.runs SET leased_by = '', leased_until = now() + %(seconds)s * interval '1 second'
WHERE id = %(id)s AND leased_by = %(service)s AND status = 'running'
"""
# One that nobody runs is cancelled here and now; the service that runs one is told with its heartbeat.
CANCEL_SQL = f"""
UPDATE workflows.runs
SET cancel_requested = true,
    status = CASE WHEN status = 'running' THEN status ELSE 'cancelled' END,
    ended_at = CASE WHEN status = 'running' THEN NULL ELSE now() END
WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('queued', 'running', 'waiting')
RETURNING {ALL}
"""  # noqa: S608 - constants
# One that is over, or waits, goes on from somewhere else.
CLAIM_ENDED_SQL = f"""
UPDATE workflows.runs AS run
SET status = 'running', ended_at = NULL, cancel_requested = false, poked = false, lapses = 0,
    leased_by = %(service)s, leased_until = now() + %(seconds)s * interval '1 second'
WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('failed', 'cancelled', 'succeeded', 'waiting')
RETURNING {RUN_ALL}
"""  # noqa: S608 - constants
# The claim took away that it was poked: looked at once too often, no signal is lost.
PUT_BACK_SQL = """
UPDATE workflows.runs
SET status = %(status)s, ended_at = %(ended_at)s, poked = true, leased_by = '', leased_until = '-infinity'
WHERE id = %(id)s AND leased_by = %(service)s AND status = 'running'
"""
# The row is locked first: a run that is about to wait sees the signal, or is poked by it.
POKE_SQL = """
UPDATE workflows.runs SET poked = true
WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('queued', 'running', 'waiting')
RETURNING (SELECT count(*) FROM workflows.signals AS sent
           WHERE sent.run_id = runs.id AND sent.interrupt_id IS NULL) AS signals
"""
SIGNAL_SQL = "INSERT INTO workflows.signals (run_id, name, payload) VALUES (%(id)s, %(name)s, %(payload)s)"
TAKEN_SQL = "SELECT payload FROM workflows.signals WHERE run_id = %s AND interrupt_id = %s"
TAKE_SQL = """
UPDATE workflows.signals SET interrupt_id = %(interrupt_id)s
WHERE id = (SELECT id FROM workflows.signals
            WHERE run_id = %(id)s AND name = %(name)s AND interrupt_id IS NULL ORDER BY id LIMIT 1)
RETURNING payload
"""
# Locked, so that nobody begins it now.
IS_LEASED_SQL = """
SELECT id FROM (SELECT id, status, leased_until FROM workflows.runs WHERE id = %s FOR UPDATE) AS run
WHERE status = 'running' AND leased_until > now()
"""
ERASE_SQL = "DELETE FROM workflows.runs WHERE id = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A row of the table without what may be large; the columns are explained there."""

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
    def ended(self) -> bool:
        """Whether it goes on only when it is recovered."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunSummary):
    """A whole row."""

    definition: dict[str, JsonValue]
    input: dict[str, JsonValue]
    cancel_requested: bool
    lapses: int
    # Claimed for the first time: there is no checkpoint to look at.
    fresh: bool = False
    # Claimed when its service had died, or left it: some of its steps may have been in progress.
    broken_off: bool = False


@dataclass(frozen=True, slots=True)
class Came:
    """A signal that came; its payload may be null."""

    payload: JsonValue


class WorkflowStore:
    """The runs.

    Args:
        pool: Connections that autocommit and give rows as dicts.
        service: Names this process among those on the database.
        lease_seconds: How long a run is this service's without a heartbeat.
    """

    def __init__(self, pool: Pool, *, service: str, lease_seconds: float) -> None:
        self._pool = pool
        self._service = service
        self._lease = lease_seconds

    async def add(
        self,
        *,
        id: str,  # noqa: A002 - the column
        tenant: str,
        user_id: str,
        client_id: str,
        name: str,
        definition: Mapping[str, JsonValue],
        input: Mapping[str, JsonValue],  # noqa: A002
        priority: int,
    ) -> tuple[Run, bool]:
        """Queue a run.

        Returns:
            It, and whether it is new: the client's id may name one that was queued before.
        """
        given = {
            "id": id,
            "tenant": tenant,
            "user_id": user_id,
            "client_id": client_id,
            "name": name,
            "definition": Jsonb(definition),
            "input": Jsonb(input),
            "priority": priority,
        }
        while not (row := await self._one(ADD_SQL, given)):
            # Should the known one be erased in between, there is room again.
            if known := await self._one(BY_CLIENT_ID_SQL, (tenant, client_id)):
                return Run(**known), False
        return Run(**row), True

    async def get(self, tenant: str, run_id: str) -> Run | None:
        """A run of the tenant's; None where there is none of that id."""
        row = await self._one(ONE_SQL, (tenant, run_id))
        return Run(**row) if row else None

    async def list(
        self, tenant: str, *, status: Status | None, name: str | None, limit: int, offset: int
    ) -> Sequence[RunSummary]:
        """The tenant's runs, the latest first."""
        given = {"tenant": tenant, "status": status, "name": name, "limit": limit, "offset": offset}
        async with self._pool.connection() as connection:
            rows = await connection.execute(LIST_SQL, given)
            return [RunSummary(**row) for row in await rows.fetchall()]

    async def counts(self, tenant: str) -> dict[Status, int]:
        """How many of the tenant's runs are queued, running and waiting."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(COUNTS_SQL, (tenant,))).fetchall()
        return {row["status"]: row["runs"] for row in rows}

    async def claim(self, *, limit: int) -> Sequence[Run]:
        """Runs that are due, tenants in turn, each with its most urgent first; they are this service's."""
        given = {"limit": limit, "service": self._service, "seconds": self._lease}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(CLAIM_SQL, given)).fetchall()
        return sorted((Run(**row) for row in rows), key=lambda run: (-run.priority, run.created_at))

    async def claim_waiting(self, tenant: str, run_id: str) -> Run | None:
        """One run, which is this service's from here on. None: it does not wait."""
        given = {"tenant": tenant, "id": run_id, "service": self._service, "seconds": self._lease}
        row = await self._one(CLAIM_ONE_SQL, given)
        return Run(**row) if row else None

    async def heartbeat(self, ids: Sequence[str]) -> dict[str, bool]:
        """Hold runs for another while.

        Returns:
            Those that are still this service's, and whether each is to be cancelled.
        """
        given = {"ids": list(ids), "service": self._service, "seconds": self._lease}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(HEARTBEAT_SQL, given)).fetchall()
        return {row["id"]: row["cancel_requested"] for row in rows}

    async def waits(self, run_id: str, *, wake_at: float | None) -> None:
        """A run has stopped for a signal, a person or a time (seconds since the epoch)."""
        await self._execute(WAIT_SQL, {"id": run_id, "service": self._service, "wake_at": wake_at})

    async def ends(self, run_id: str, status: Ended, error: Mapping[str, Any] | None) -> None:
        """A run has come to its end; one that is another service's by now is left alone."""
        given = {"id": run_id, "service": self._service, "status": status}
        await self._execute(END_SQL, {**given, "error": None if error is None else Jsonb(error)})

    async def release(self, run_id: str, *, pause: float) -> None:
        """Leave a run to whichever service is first, not before ``pause`` seconds are over."""
        await self._execute(RELEASE_SQL, {"id": run_id, "service": self._service, "seconds": pause})

    async def cancel(self, tenant: str, run_id: str) -> Run | None:
        """Cancel a run; one in progress stops at its next step. None: it is over, or there is none."""
        row = await self._one(CANCEL_SQL, {"tenant": tenant, "id": run_id})
        return Run(**row) if row else None

    async def claim_ended(self, tenant: str, run_id: str) -> Run | None:
        """A run that is over or waits, which is this service's from here on. None: it is in progress."""
        given = {"tenant": tenant, "id": run_id, "service": self._service, "seconds": self._lease}
        row = await self._one(CLAIM_ENDED_SQL, given)
        return Run(**row) if row else None

    async def put_back(self, before: RunSummary) -> None:
        """Leave a run that was claimed as it was before."""
        given = {"status": before.status, "ended_at": before.ended_at, "id": before.id}
        await self._execute(PUT_BACK_SQL, {**given, "service": self._service})

    async def signal(self, tenant: str, run_id: str, name: str, payload: JsonValue) -> bool:
        """Keep a signal for a run and wake it.

        Returns:
            False where the run is over, or has :data:`MOST_SIGNALS` that nobody waited for.
        """
        given = {"tenant": tenant, "id": run_id, "name": name, "payload": Jsonb(payload)}
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(POKE_SQL, given)).fetchone()
            if row is None or row["signals"] >= MOST_SIGNALS:
                return False
            await connection.execute(SIGNAL_SQL, given)
        return True

    async def take_signal(self, run_id: str, interrupt_id: str, name: str) -> Came | None:
        """The signal for an interrupt, which is its own from here on: the oldest of the name."""
        row = await self._one(TAKEN_SQL, (run_id, interrupt_id)) or await self._one(
            TAKE_SQL, {"id": run_id, "interrupt_id": interrupt_id, "name": name}
        )
        return Came(**row) if row else None

    async def _one(self, statement: str, given: Mapping[str, Any] | Sequence[Any]) -> DictRow | None:
        async with self._pool.connection() as connection:
            return await (await connection.execute(statement.encode(), given)).fetchone()

    async def _execute(self, statement: str, given: Mapping[str, Any]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(statement.encode(), given)


async def erase_run(connection: Connection, run_id: str) -> None:
    """Delete a run and what came for it, in the caller's transaction.

    Raises:
        ThreadBusy: A service runs it.
    """
    if await (await connection.execute(IS_LEASED_SQL, (run_id,))).fetchone():
        raise ThreadBusy(f"workflow {run_id!r} is in progress; cancel it first", retry_after=1)
    await connection.execute(ERASE_SQL, (run_id,))


async def run_tenant(connection: Connection, run_id: str) -> str | None:
    """Whose a run is; None where there is none of that id."""
    row = await (await connection.execute(TENANT_SQL, (run_id,))).fetchone()
    return str(row["tenant"]) if row else None
