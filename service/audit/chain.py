"""The audit's chains: each tenant's entries in a row, each with a hash of itself and of the one before.

Entries are written without a look at their neighbours, so that no effect waits for another. One task gives
them their places a moment later, in the order it finds them; an entry whose transaction ends late comes
later. A chain shows what was altered or taken out of it, not what was cut off its end: whoever wants to know
that too keeps a note of its head (``make audit-verify`` prints it) somewhere else.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from psycopg.rows import DictRow

from core.postgres import Connection, Pool
from service.audit.trail import COLUMNS

BATCH: Final = 1_000

# One at a time links, or cuts, whichever service it is in. Released with the transaction.
LOCK_SQL: Final = "SELECT pg_advisory_xact_lock(hashtextextended('chains of the audit', 0))"
TRY_LOCK_SQL: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('chains of the audit', 0)) AS ours"
ANY_SQL: Final = "SELECT EXISTS (SELECT FROM audit.entries WHERE hash IS NULL) AS any"
UNLINKED_SQL: Final = f"""
SELECT tenant, {COLUMNS} FROM audit.entries WHERE hash IS NULL ORDER BY id LIMIT %(limit)s
"""  # noqa: S608 - constants
# The last link, or what was cut off where nothing is left.
HEADS_SQL: Final = """
SELECT wanted.tenant, head.position, head.hash
FROM unnest(%(tenants)s::text[]) AS wanted (tenant)
CROSS JOIN LATERAL (
    (SELECT position, hash FROM audit.entries
     WHERE tenant = wanted.tenant AND position IS NOT NULL ORDER BY position DESC LIMIT 1)
    UNION ALL
    (SELECT position, hash FROM audit.seals
     WHERE tenant = wanted.tenant ORDER BY position DESC LIMIT 1)
    ORDER BY position DESC LIMIT 1
) AS head
"""
LINK_SQL: Final = """
UPDATE audit.entries AS entry SET position = made.position, hash = made.hash
FROM unnest(%(tenants)s::text[], %(ids)s::bigint[], %(positions)s::bigint[], %(hashes)s::bytea[])
    AS made (tenant, id, position, hash)
WHERE entry.tenant = made.tenant AND entry.id = made.id
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: how many entries it ever had, and the last one's hash."""

    position: int
    hash: bytes


def beginning(tenant: str) -> Head:
    """The head of a chain that has no entry yet."""
    return Head(0, hashlib.sha256(f"audit of {tenant}".encode()).digest())


def linked(head: Head, tenant: str, entry: Mapping[str, Any]) -> Head:
    """The head once an entry is linked to it: SHA-256 of the hash before, and of the entry as JSON."""
    said = [
        tenant,
        head.position + 1,
        entry["id"],
        _time(entry["at"]),
        *(entry[name] for name in ("user_id", "key_id", "thread_id", "run_id", "action", "tool")),
        *(entry[name] for name in ("effect_key", "arguments", "outcome", "details")),
    ]
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return Head(head.position + 1, hashlib.sha256(head.hash + text.encode()).digest())


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


async def heads(connection: Connection, tenants: Iterable[str]) -> dict[str, Head]:
    """The heads of tenants' chains."""
    wanted = sorted(set(tenants))
    cursor = await connection.execute(HEADS_SQL, {"tenants": wanted})
    found = {row["tenant"]: Head(row["position"], row["hash"]) for row in await cursor.fetchall()}
    return {tenant: found.get(tenant) or beginning(tenant) for tenant in wanted}


async def link(pool: Pool) -> int:
    """Link what is not linked yet, in batches.

    Returns:
        How many entries; 0 also where another service is at it.

    Raises:
        psycopg.Error, PoolTimeout: The database is away; what is not linked stays so.
    """
    done = 0
    while made := await _batch(pool):
        done += made
        if made < BATCH:
            break
    return done


async def _batch(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute(ANY_SQL)).fetchone()
        if not (row and row["any"]):
            return 0
        async with connection.transaction():
            row = await (await connection.execute(TRY_LOCK_SQL)).fetchone()
            if not (row and row["ours"]):
                return 0
            cursor = await connection.execute(UNLINKED_SQL.encode(), {"limit": BATCH})
            entries = await cursor.fetchall()
            await connection.execute(LINK_SQL, await _links(connection, entries))
    return len(entries)


async def _links(connection: Connection, entries: Sequence[DictRow]) -> dict[str, list[Any]]:
    ends = await heads(connection, (entry["tenant"] for entry in entries))
    made: list[Head] = []
    for entry in entries:
        tenant = entry["tenant"]
        ends[tenant] = linked(ends[tenant], tenant, entry)
        made.append(ends[tenant])
    return {
        "tenants": [entry["tenant"] for entry in entries],
        "ids": [entry["id"] for entry in entries],
        "positions": [head.position for head in made],
        "hashes": [head.hash for head in made],
    }
