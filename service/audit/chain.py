"""The hash chains of the audit trail: link entries, verify the chains, cut off old entries.

Each tenant's entries form a chain, each with a hash of itself and of the entry before. Entries are written
without looking at their neighbours, so that no effect waits for another; a background task links them a
moment later, in the order in which it finds them. A chain shows entries that were altered or removed, but not
entries that were removed at its end: to detect that too, keep a copy of its head (``make audit-verify``
prints it) somewhere else.

Cutting leaves a seal: the position up to which entries were removed, and the hash the rest continues from.
The database refuses to delete entries that are not sealed.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg.rows import DictRow

from core.context import Actor
from core.postgres import Connection, Pool
from service.audit.trail import COLUMNS, Entry, record_entry

# Entries linked, verified or cut in one query or transaction. Linking waits while entries are cut.
LINK_BATCH: Final = 1_000
VERIFY_PAGE: Final = 1_000
CUT_BATCH: Final = 10_000

# One service at a time links or cuts. Released with the transaction.
LOCK_SQL: Final = "SELECT pg_advisory_xact_lock(hashtextextended('chains of the audit', 0))"
TRY_LOCK_SQL: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('chains of the audit', 0)) AS locked"
HAS_UNLINKED_SQL: Final = "SELECT EXISTS (SELECT FROM audit.entries WHERE hash IS NULL) AS found"
UNLINKED_SQL: Final = f"""
SELECT tenant, {COLUMNS} FROM audit.entries WHERE hash IS NULL ORDER BY id LIMIT %(limit)s
"""  # noqa: S608 - constants
# The last linked entry, or the seal where no entry is left.
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
UPDATE audit.entries AS entry SET position = link.position, hash = link.hash
FROM unnest(%(tenants)s::text[], %(ids)s::bigint[], %(positions)s::bigint[], %(hashes)s::bytea[])
    AS link (tenant, id, position, hash)
WHERE entry.tenant = link.tenant AND entry.id = link.id
"""
# Entries that are cut meanwhile must not look as if they were missing.
SNAPSHOT_SQL: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
TENANTS_SQL: Final = """
SELECT tenant FROM audit.entries UNION SELECT tenant FROM audit.seals ORDER BY tenant
"""
LATEST_SEAL_SQL: Final = (
    "SELECT position, hash FROM audit.seals WHERE tenant = %s ORDER BY position DESC LIMIT 1"
)
LINKED_SQL: Final = f"""
SELECT {COLUMNS} FROM audit.entries WHERE tenant = %s AND position > %s ORDER BY position LIMIT %s
"""  # noqa: S608 - constants
COUNT_UNLINKED_SQL: Final = "SELECT count(*) AS n FROM audit.entries WHERE tenant = %s AND hash IS NULL"
# The oldest entries of a chain, up to the first that is to stay.
OLDEST_SQL: Final = """
SELECT max(position) AS position, count(*) AS entries, min(at) AS oldest, max(at) AS newest
FROM (
    SELECT position, at FROM audit.entries
    WHERE tenant = %(tenant)s AND position < coalesce(
        (SELECT position FROM audit.entries
         WHERE tenant = %(tenant)s AND position IS NOT NULL AND at >= now() - %(keep)s
         ORDER BY position LIMIT 1),
        9223372036854775807)
    ORDER BY position LIMIT %(limit)s
) AS old
"""
SEAL_SQL: Final = """
INSERT INTO audit.seals (tenant, position, hash, rows, oldest, newest)
SELECT tenant, position, hash, %(entries)s, %(oldest)s, %(newest)s
FROM audit.entries WHERE tenant = %(tenant)s AND position = %(position)s
"""
CUT_SQL: Final = "DELETE FROM audit.entries WHERE tenant = %(tenant)s AND position <= %(position)s"


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The end of a chain: how many entries it ever had, and the last one's hash."""

    position: int
    hash: bytes


def start_chain(tenant: str) -> ChainHead:
    """Return the head of a chain without entries."""
    return ChainHead(0, hashlib.sha256(f"audit of {tenant}".encode()).digest())


def extend_chain(head: ChainHead, tenant: str, entry: Mapping[str, Any]) -> ChainHead:
    """Return the head after an entry: the SHA-256 of the hash before it and of the entry as JSON."""
    content = [
        tenant,
        head.position + 1,
        entry["id"],
        entry["at"].astimezone(UTC).isoformat(timespec="microseconds"),
        *(entry[name] for name in ("user_id", "key_id", "thread_id", "run_id", "action", "tool")),
        *(entry[name] for name in ("effect_key", "arguments", "outcome", "details")),
    ]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return ChainHead(head.position + 1, hashlib.sha256(head.hash + text.encode()).digest())


async def link_entries(pool: Pool) -> int:
    """Link the entries that are not linked yet, in batches.

    Returns:
        The number of entries linked; 0 also where another service is linking.

    Raises:
        psycopg.Error, PoolTimeout: The database is unavailable; the rest is linked later.
    """
    total = 0
    while linked := await _link_batch(pool):
        total += linked
        if linked < LINK_BATCH:
            break
    return total


async def _link_batch(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute(HAS_UNLINKED_SQL)).fetchone()
        if not (row and row["found"]):
            return 0
        async with connection.transaction():
            row = await (await connection.execute(TRY_LOCK_SQL)).fetchone()
            if not (row and row["locked"]):
                return 0
            cursor = await connection.execute(UNLINKED_SQL.encode(), {"limit": LINK_BATCH})
            entries = await cursor.fetchall()
            await connection.execute(LINK_SQL, await _compute_links(connection, entries))
    return len(entries)


async def _compute_links(connection: Connection, entries: Sequence[DictRow]) -> dict[str, list[Any]]:
    heads = await _load_heads(connection, (entry["tenant"] for entry in entries))
    links: list[ChainHead] = []
    for entry in entries:
        tenant = entry["tenant"]
        heads[tenant] = extend_chain(heads[tenant], tenant, entry)
        links.append(heads[tenant])
    return {
        "tenants": [entry["tenant"] for entry in entries],
        "ids": [entry["id"] for entry in entries],
        "positions": [link.position for link in links],
        "hashes": [link.hash for link in links],
    }


async def _load_heads(connection: Connection, tenants: Iterable[str]) -> dict[str, ChainHead]:
    names = sorted(set(tenants))
    cursor = await connection.execute(HEADS_SQL, {"tenants": names})
    heads = {row["tenant"]: ChainHead(row["position"], row["hash"]) for row in await cursor.fetchall()}
    return {tenant: heads.get(tenant) or start_chain(tenant) for tenant in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """The result of verifying a tenant's chain.

    Attributes:
        tenant: The tenant.
        entries: Intact entries, up to the fault where there is one.
        cut: Entries that were cut off before them.
        unlinked: Entries that are not linked yet; in a running service, those of the last second.
        head: Where the chain ends, or breaks.
        fault: What is wrong with the first entry that is not intact; empty: nothing.
    """

    tenant: str
    entries: int
    cut: int
    unlinked: int
    head: ChainHead
    fault: str


async def verify_chains(pool: Pool) -> AsyncIterator[ChainVerdict]:
    """Follow each tenant's chain from its start, or from where it was cut."""
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(SNAPSHOT_SQL)
        cursor = await connection.execute(TENANTS_SQL)
        for row in await cursor.fetchall():
            yield await _verify_chain(connection, row["tenant"])


async def _verify_chain(connection: Connection, tenant: str) -> ChainVerdict:
    seal = await (await connection.execute(LATEST_SEAL_SQL, (tenant,))).fetchone()
    start = head = ChainHead(seal["position"], seal["hash"]) if seal else start_chain(tenant)
    fault = ""
    async for entry in _read_linked(connection, tenant, start.position):
        expected = extend_chain(head, tenant, entry)
        if fault := _describe_fault(entry, expected):
            break
        head = expected
    row = await (await connection.execute(COUNT_UNLINKED_SQL, (tenant,))).fetchone()
    return ChainVerdict(
        tenant=tenant,
        entries=head.position - start.position,
        cut=start.position,
        unlinked=row["n"] if row else 0,
        head=head,
        fault=fault,
    )


async def _read_linked(connection: Connection, tenant: str, after: int) -> AsyncIterator[dict[str, Any]]:
    while True:
        cursor = await connection.execute(LINKED_SQL.encode(), (tenant, after, VERIFY_PAGE))
        page = await cursor.fetchall()
        for entry in page:
            yield entry
        if len(page) < VERIFY_PAGE:
            return
        after = page[-1]["position"]


def _describe_fault(entry: dict[str, Any], expected: ChainHead) -> str:
    if entry["position"] != expected.position:
        return (
            f"entry {expected.position} is missing: {entry['position']} (id {entry['id']}) comes in its place"
        )
    if entry["hash"] != expected.hash:
        at = entry["at"].isoformat()
        return f"entry {expected.position} (id {entry['id']}, {at}) is not as it was written"
    return ""


async def cut_chains(pool: Pool, keep: timedelta) -> int:
    """Remove entries older than ``keep``, a batch at a time.

    Returns:
        The number of entries removed.
    """
    total = 0
    async with pool.connection() as connection:
        tenants = await (await connection.execute(TENANTS_SQL)).fetchall()
        for row in tenants:
            while removed := await _cut_batch(connection, row["tenant"], keep):
                total += removed
                if removed < CUT_BATCH:
                    break
    return total


async def _cut_batch(connection: Connection, tenant: str, keep: timedelta) -> int:
    async with connection.transaction():
        await connection.execute(LOCK_SQL)
        parameters = {"tenant": tenant, "keep": keep, "limit": CUT_BATCH}
        old: dict[str, Any] | None = await (await connection.execute(OLDEST_SQL, parameters)).fetchone()
        if not (old and old["entries"]):
            return 0
        await connection.execute(SEAL_SQL, {**old, "tenant": tenant})
        await connection.execute(CUT_SQL, {"tenant": tenant, "position": old["position"]})
        details = {
            "entries": old["entries"],
            "oldest_at": _format_time(old["oldest"]),
            "newest_at": _format_time(old["newest"]),
        }
        actor = Actor(tenant=tenant, user="retention")
        entry = Entry(action="retention", outcome="cut", details=details, actor=actor)
        await record_entry(connection, entry)
    return int(old["entries"])


def _format_time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
