"""The tables of threads and runs: whose a thread is, which run executes on it, and which replica holds a run.

A run is a row before it is a task of a process. See ``sql/0001_runs.sql`` for the columns.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from psycopg.rows import DictRow
from psycopg.types.json import Json
from pydantic import BaseModel

from core.batching import Batcher
from core.postgres import Pool, concerns_database, read_queries
from service.outbox.events import NewEvent, dump_events
from service.runs.rows import (
    Added,
    BegunRun,
    Cancellation,
    EndStatus,
    NewRun,
    OpenRuns,
    RunRow,
    RunStatus,
    Start,
    Successor,
)

QUERIES: Final = read_queries(Path(__file__).parent / "queries.sql")

# Channel on which replicas tell each other of runs (service/runs/notifications.py).
CHANNEL: Final = "ventros_runs"
# The notification that a run which nobody holds became ready.
READY: Final = "ready"
# A run that was on so many replicas that died is not given to another one.
MAX_ATTEMPTS: Final = 3
_BATCH: Final = 500
# How often the row of a run is looked at whose end is waited for.
_WAIT_SECONDS: Final = 0.1
# Of a thread's runs, those that whoever follows the thread may have missed.
_LATEST_RUNS: Final = 20


class RunStore:
    """Threads and runs in the service's Postgres.

    To add, claim, read and end a run shares a statement with what happens to others at the same time.

    Args:
        pool: The service's pool.
        replica: The id of this process among those on the database, a UUID.
        claim_seconds: How long a run belongs to this replica unless the claim is extended.
    """

    def __init__(self, pool: Pool, *, replica: str, claim_seconds: float) -> None:
        self.pool = pool
        self.replica = replica
        self.claim_seconds = claim_seconds
        self._mine = {"replica": replica, "claim_seconds": claim_seconds}
        self._adds = Batcher(self._add_all, is_shared=concerns_database)
        self._claims = Batcher(self._claim_all, is_shared=concerns_database)
        self._reads = Batcher(self._get_all, is_shared=concerns_database)
        self._ends = Batcher(self._end_all, is_shared=concerns_database)

    async def add(
        self,
        run: NewRun,
        *,
        may_start: bool,
        may_wait: bool,
        places: int | None,
        queue_length: int,
        held: bool = True,
    ) -> Added:
        """Insert a run: running if it may start now, else pending if it may wait.

        Args:
            run: The run.
            may_start: Whether this replica has a free slot for it.
            may_wait: Whether it may wait behind other runs of its thread.
            places: Most runs of the tenant that may be running, over all replicas; ``None``: any number.
            queue_length: Most runs of the tenant that may be pending, over all replicas.
            held: Whether a caller of this replica waits for it, so that no other replica takes it.
        """
        return await self._adds.call(
            {
                "id": run.id,
                "thread_id": run.thread_id,
                "tenant": run.tenant,
                "user_id": run.user,
                "graph": run.graph,
                "queue": run.queue,
                "kwargs": _to_text(run.kwargs),
                "strategy": run.strategy,
                "priority": run.priority,
                "assistant_id": run.assistant_id,
                "metadata": run.metadata,
                "webhook": run.webhook,
                "thread_metadata": {"assistant_id": run.assistant_id} if run.assistant_id else {},
                "after_seconds": run.after_seconds,
                "may_create": run.may_create_thread,
                "may_start": may_start,
                "may_wait": may_wait,
                "places": places,
                "queue_length": queue_length,
                "max_attempts": MAX_ATTEMPTS,
                "claim_seconds": self.claim_seconds,
                "replica": self.replica if held else None,
            }
        )

    async def _add_all(self, runs: Sequence[Mapping[str, Any]]) -> Sequence[Added]:
        # In one order in all replicas, so that none waits for another that waits for it.
        ordered = sorted(runs, key=lambda run: run["thread_id"])
        added = {
            row.pop("id"): Added(**row) for row in await self._fetch_all("add", {"runs": _to_json(ordered)})
        }
        return [added[run["id"]] for run in runs]

    async def claim(self, run_id: str, *, places: int | None) -> Start | None:
        """Start a pending run if it is its turn; ``None``: it is not, or it is gone."""
        return await self._claims.call({"run": run_id, "places": places})

    async def _claim_all(self, claims: Sequence[Mapping[str, Any]]) -> Sequence[Start | None]:
        ordered = sorted(claims, key=lambda claim: claim["run"])
        rows = await self._fetch_all("claim", {**self._mine, "claims": _to_json(ordered)})
        started = {row.pop("id"): Start(**row) for row in rows}
        return [started.get(claim["run"]) for claim in claims]

    async def end(
        self,
        run_id: str,
        attempt: int,
        status: EndStatus,
        error: Mapping[str, Any] | None = None,
        *,
        events: Sequence[NewEvent] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Successor | None:
        """End a run that this replica holds, and return the run that is next on its thread.

        Args:
            run_id: The run.
            attempt: The claim's fencing token.
            status: How it ended.
            error: Why, as JSON, where it failed.
            events: What becomes true with its end, written in the same transaction.
            metadata: What the thread's metadata says from now on; other keys of it stay.
        """
        written = dump_events(events)
        return await self._ends.call(
            {
                "id": run_id,
                "attempt": attempt,
                "status": status,
                "error": _to_text(error),
                "metadata": metadata,
                "events": written and orjson.Fragment(written),
            }
        )

    async def _end_all(self, ends: Sequence[Mapping[str, Any]]) -> Sequence[Successor | None]:
        rows = await self._fetch_all("end", {"ends": _to_json(ends)})
        successors = {row["id"]: _read_successor(row) for row in rows}
        return [successors.get(end["id"]) for end in ends]

    async def release(self, run_id: str, attempt: int) -> bool:
        """Leave a run to any replica; return whether any can execute it."""
        values = {"id": run_id, "attempt": attempt, "replica": self.replica}
        return await self._fetch_one("release", values) is not None

    async def discard(self, run_id: str, attempt: int, *, drop_thread: str | None = None) -> Successor | None:
        """Delete a refused run, and the thread if it was made for it; return the next one there."""
        row = await self._fetch_one("discard", {"id": run_id, "attempt": attempt})
        if drop_thread:
            await self._fetch_all("drop_thread", {"thread": drop_thread})
        return _read_successor(row)

    async def extend(self, ids: Sequence[str]) -> dict[str, Cancellation | None]:
        """Extend claims; return the runs that this replica still holds, and which are to be cancelled."""
        rows = await self._fetch_all("extend", {**self._mine, "ids": list(ids)})
        return {
            row["id"]: Cancellation(row["action"], row["reason"]) if row["action"] else None for row in rows
        }

    async def requeue(self, error: Mapping[str, Any]) -> list[DictRow]:
        """Free the runs whose replica stopped renewing its claims.

        Returns:
            ``id``, ``status`` (``pending``, or ``error`` with the given one) and ``thread_id`` of each.
        """
        values = {"error": _to_json(error), "limit": _BATCH}
        return list(await self._fetch_all("requeue", values))

    async def reserve(self, *, limit: int, places: int | None) -> Sequence[RunRow]:
        """Hold pending runs that nobody holds and that are next on their threads; tenants take turns.

        Args:
            limit: Most runs.
            places: Runs of one tenant that may be running, over all replicas; ``None``: any number.
        """
        rows = await self._fetch_all("reserve", {**self._mine, "limit": limit, "places": places})
        return [RunRow(**row) for row in rows]

    async def return_reserved(self, run_id: str) -> None:
        """Leave a pending run that this replica holds to any replica."""
        await self._fetch_all("return_reserved", {**self._mine, "id": run_id, "message": READY})

    async def cancel(
        self,
        tenant: str,
        thread_id: str,
        cancellation: Cancellation,
        *,
        only: str | None = None,
        before: str | None = None,
    ) -> dict[str, RunStatus]:
        """Cancel a thread's open runs: all of them, only one, or those ahead of one.

        Returns:
            Their status: ``running`` until the replica that executes it has stopped it, else ``interrupted``.
        """
        values = {
            "tenant": tenant,
            "thread": thread_id,
            "action": cancellation.action,
            "reason": cancellation.reason,
            "only": only,
            "before": before,
        }
        return {row["id"]: row["status"] for row in await self._fetch_all("cancel", values)}

    async def retry(self, run_id: str) -> bool:
        """Make a run pending that failed and that no other run followed; return whether it was one."""
        return await self._fetch_one("retry", {"id": run_id, "more_attempts": MAX_ATTEMPTS}) is not None

    async def get(self, run_id: str) -> RunRow | None:
        """Return a run; ``None``: there is none with that id, or it was deleted."""
        return await self._reads.call(run_id)

    async def _get_all(self, ids: Sequence[str]) -> Sequence[RunRow | None]:
        rows = {row["id"]: row for row in await self._fetch_all("get", {"ids": list(ids)})}
        return [RunRow(**rows[run_id]) if run_id in rows else None for run_id in ids]

    async def wait_until_ended(self, row: RunRow) -> RunRow:
        """Wait for a run's end and return its row; of one that was rolled back, the last row there was."""
        while not row.ended_at:
            await asyncio.sleep(_WAIT_SECONDS)
            latest = await self.get(row.id)
            if latest is None:
                break
            row = latest
        return row

    async def list(
        self,
        tenant: str,
        *,
        thread_id: str | None = None,
        status: RunStatus | None = None,
        graph: str | None = None,
        limit: int,
        offset: int = 0,
    ) -> Sequence[RunRow]:
        """Return the tenant's runs, the latest first."""
        values = {
            "tenant": tenant,
            "thread": thread_id,
            "status": status,
            "graph": graph,
            "limit": limit,
            "offset": offset,
        }
        return [RunRow(**row) for row in await self._fetch_all("list", values)]

    async def list_begun(self, tenant: str, thread_id: str) -> Sequence[BegunRun]:
        """Return the latest runs of a thread that are not pending, in the order in which they began."""
        values = {"tenant": tenant, "thread": thread_id, "limit": _LATEST_RUNS}
        return [BegunRun(**row) for row in await self._fetch_all("list_begun", values)]

    async def load_activity(self, threads: Sequence[str]) -> dict[str, datetime | None]:
        """Return when a run last began or ended on each thread; ``None``: it has had none."""
        values = {"threads": list(threads), "limit": _LATEST_RUNS}
        return {row["id"]: row["at"] for row in await self._fetch_all("load_activity", values)}

    async def count_open(self, *, tenants: int) -> Sequence[OpenRuns]:
        """Return how many runs are running and pending, of all replicas and the tenants with the most."""
        return [OpenRuns(**row) for row in await self._fetch_all("count_open", {"tenants": tenants})]

    async def delete_ended(self, *, days: float) -> int:
        """Delete a batch of runs that ended so long ago, and return their number."""
        async with self.pool.connection() as connection:
            return (
                await connection.execute(QUERIES["delete_ended"], {"days": days, "limit": _BATCH})
            ).rowcount

    async def find_open(self, thread_id: str) -> str:
        """Return a run of the thread that has not ended; empty: there is none."""
        row = await self._fetch_one("find_open", {"thread": thread_id, "except": ""})
        return str(row["id"]) if row else ""

    async def delete(self, run_id: str) -> None:
        """Delete a run that has ended."""
        await self._fetch_one("delete_run", {"id": run_id})

    async def notify(self, message: str) -> None:
        """Tell the other replicas something; see :data:`CHANNEL`."""
        async with self.pool.connection() as connection:
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, message))

    async def _fetch_one(self, query: str, values: Mapping[str, Any]) -> DictRow | None:
        async with self.pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchone()

    async def _fetch_all(self, query: str, values: Mapping[str, Any]) -> Sequence[DictRow]:
        async with self.pool.connection() as connection:
            return await (await connection.execute(QUERIES[query], values)).fetchall()


def _to_json(value: Any) -> Json:
    return Json(value, _dump_json)


def _to_text(value: Mapping[str, Any] | None) -> str | None:
    """Return JSON within JSON: Postgres stores a NUL in a text of it so, and does not read one."""
    return None if value is None else _dump_json(value).decode()


def _dump_json(value: Any) -> bytes:
    return orjson.dumps(value, default=_dump_model, option=orjson.OPT_NON_STR_KEYS)


def _dump_model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _read_successor(row: DictRow | None) -> Successor | None:
    if not row or not row["next_id"]:
        return None
    owner = row["next_owner"]
    return Successor(id=row["next_id"], owner=str(owner) if owner else None)
