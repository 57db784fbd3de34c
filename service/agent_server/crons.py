"""Crons: runs that begin again and again, each exactly once over all replicas."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from psycopg.rows import DictRow
from psycopg.types.json import Json, Jsonb

from core.errors import InvalidRequest, NotFound, ServiceError
from core.logging import get_logger
from core.postgres import Pool
from service.agent_server.assistants import QUERIES
from service.agent_server.run_body import RunBody
from service.agent_server.run_builder import RunBuilder
from service.auth.principal import Identity
from service.runs.executor import RunExecutor
from service.runs.store import RunStore

log = get_logger(__name__)

# A cron as the API shows it.
Cron: TypeAlias = DictRow

PASS_SECONDS: Final = 5.0
_FIELDS: Final = 5
# Crons that one pass begins.
_BATCH: Final = 100


def find_next(schedule: str, timezone: str | None, after: datetime) -> datetime | None:
    """Return when a schedule is due next; ``None``: never again.

    Args:
        schedule: Minute, hour, day of month, month and day of week, as in crontab(5).
        timezone: IANA name of the zone it is meant in; ``None``: UTC.
        after: The time to look from.

    Raises:
        InvalidRequest: The schedule or the zone is not valid.
    """
    if len(schedule.split()) != _FIELDS or not croniter.is_valid(schedule):
        raise InvalidRequest(
            f"schedule: {schedule[:100]!r} is no cron expression; it has five fields, such as '0 9 * * 1-5'"
        )
    try:
        zone = ZoneInfo(timezone) if timezone else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(
            f"timezone: {(timezone or '')[:100]!r} is no IANA name such as America/Sao_Paulo"
        ) from None
    try:
        found: datetime = croniter(schedule, after.astimezone(zone)).get_next(datetime)
    except (ValueError, KeyError):
        return None
    return found.astimezone(UTC)


class CronStore:
    """Crons in the service's Postgres.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(
        self, identity: Identity, fields: Mapping[str, Any], body: RunBody, *, assistant_id: str
    ) -> Cron:
        """Create a cron.

        Args:
            identity: On whose behalf its runs work.
            fields: ``schedule``, ``timezone``, ``end_time``, ``enabled``, ``on_run_completed`` and
                ``thread_id``.
            body: The body of its runs.
            assistant_id: The assistant.

        Raises:
            InvalidRequest: The schedule or the time zone is not valid.
        """
        cron_id = uuid4()
        values = {
            "id": cron_id,
            "tenant": identity.tenant,
            "user": identity.user,
            "caller": Jsonb({"scopes": sorted(identity.scopes), "credential": identity.credential}),
            "assistant": assistant_id,
            **_to_columns({**fields, "metadata": body.metadata}, body.model_dump(mode="json")),
        }
        await self._execute("add_cron", values)
        return await self.get(identity.tenant, cron_id)

    async def get(self, tenant: str, cron_id: UUID) -> Cron:
        """Return a cron.

        Raises:
            NotFound: The tenant has none of that id.
        """
        found = await self.search(tenant, {"id": cron_id}, limit=1)
        if not found:
            raise NotFound(f"there is no cron {str(cron_id)!r}", details={"cron_id": str(cron_id)})
        return found[0]

    async def update(self, tenant: str, cron_id: UUID, fields: Mapping[str, Any]) -> Cron:
        """Change a cron.

        Args:
            tenant: Whose it is.
            cron_id: The cron.
            fields: Those of :meth:`create` and ``metadata``, and in ``payload`` those of its runs' body.

        Raises:
            NotFound: The tenant has none of that id.
            InvalidRequest: The schedule or the time zone is not valid.
        """
        known = await self.get(tenant, cron_id)
        payload = {**known["payload"], **fields.get("payload", {})}
        await self._execute(
            "update_cron", {"tenant": tenant, "id": cron_id, **_to_columns({**known, **fields}, payload)}
        )
        return await self.get(tenant, cron_id)

    async def search(
        self, tenant: str, filters: Mapping[str, Any], *, limit: int, offset: int = 0
    ) -> Sequence[Cron]:
        """Return crons, the latest first.

        Args:
            tenant: Whose.
            filters: ``id``, ``assistant_id``, ``thread_id``, ``enabled`` and ``metadata`` to contain.
            limit: How many at most.
            offset: So many are left out.
        """
        values = {**_to_filters(tenant, filters), "limit": limit, "offset": offset}
        async with self._pool.connection() as connection:
            return await (await connection.execute(QUERIES["list_crons"], values)).fetchall()

    async def count(self, tenant: str, filters: Mapping[str, Any]) -> int:
        """Return how many crons there are; see :meth:`search`."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(QUERIES["count_crons"], _to_filters(tenant, filters))
            ).fetchone()
        return int(row["found"]) if row else 0

    async def delete(self, tenant: str, cron_id: UUID) -> None:
        """Delete a cron; a run that it has begun goes on.

        Raises:
            NotFound: The tenant has none of that id.
        """
        async with self._pool.connection() as connection:
            values = {"tenant": tenant, "id": cron_id}
            if await (await connection.execute(QUERIES["delete_cron"], values)).fetchone() is None:
                raise NotFound(f"there is no cron {str(cron_id)!r}", details={"cron_id": str(cron_id)})

    async def _execute(self, query: str, values: Mapping[str, Any]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(QUERIES[query], values)


class CronRunner:
    """Begins the runs of crons that are due.

    Args:
        pool: The service's pool.
        runs: Queues the runs.
        run_store: Says which have been queued.
        builder: Builds them.
    """

    def __init__(self, pool: Pool, runs: RunExecutor, run_store: RunStore, builder: RunBuilder) -> None:
        self._pool = pool
        self._runs = runs
        self._run_store = run_store
        self._builder = builder

    async def run_pass(self) -> None:
        """Begin what is due. After an outage a cron begins one run, and not all that were missed."""
        for _ in range(_BATCH):
            async with self._pool.connection() as connection, connection.transaction():
                cron = await (await connection.execute(QUERIES["lock_due_cron"])).fetchone()
                if cron is None:
                    return
                await self._begin(cron)
                following = find_next(cron["schedule"], cron["timezone"], datetime.now(UTC))
                if cron["end_time"] and following and following > cron["end_time"]:
                    following = None
                await connection.execute(
                    QUERIES["advance_cron"], {"id": cron["id"], "next_run_at": following}
                )

    async def _begin(self, cron: Cron) -> None:
        """Queue the run that is due, once: its id is made of the cron's and the time."""
        run_id = derive_run_id(cron["id"], cron["next_run_at"])
        if await self._run_store.get(run_id):
            return
        caller = cron["caller"]
        identity = Identity(
            tenant=cron["tenant"],
            user=cron["user_id"],
            scopes=frozenset(caller["scopes"]),
            credential=caller["credential"],
        )
        try:
            body = RunBody.model_validate({**cron["payload"], "assistant_id": cron["assistant_id"]})
            request = await self._builder.build(
                identity,
                body,
                thread_id=cron["thread_id"] or run_id,
                may_create_thread=cron["thread_id"] is None,
                delete_thread=cron["thread_id"] is None and cron["on_run_completed"] != "keep",
                metadata={"cron_id": cron["id"], **cron["metadata"]},
                run_id=run_id,
            )
            await self._runs.enqueue(request)
        except ServiceError as error:
            # The next time may be better: the thread is busy now, or too many runs of the tenant wait.
            log.warning("cron_not_begun", cron_id=cron["id"], error=error.code, reason=error.message)


def derive_run_id(cron_id: str, at: datetime) -> str:
    """Return the id of a cron's run at a time, a UUID of version 7 like that of every run."""
    milliseconds = int(at.timestamp() * 1_000)
    noise = hashlib.sha256(f"{cron_id}\n{milliseconds}".encode()).digest()[:10]
    value = milliseconds << 80 | int.from_bytes(noise)
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def _to_filters(tenant: str, filters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": filters.get("id"),
        "assistant": filters.get("assistant_id"),
        "thread": filters.get("thread_id"),
        "enabled": filters.get("enabled"),
        "metadata": Jsonb(filters.get("metadata") or {}),
    }


def _to_columns(fields: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
    following = find_next(fields["schedule"], fields["timezone"], datetime.now(UTC))
    end_time: datetime | None = fields["end_time"]
    return {
        "thread": fields["thread_id"],
        "schedule": fields["schedule"],
        "timezone": fields["timezone"],
        "end_time": end_time,
        "next_run_at": None if following and end_time and following > end_time else following,
        "enabled": fields["enabled"],
        "on_run_completed": fields["on_run_completed"],
        "payload": Json(payload),
        "metadata": Jsonb(fields["metadata"]),
    }
