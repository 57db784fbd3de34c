"""Cut old entries off the audit, so that what is left can still be verified.

A seal is left of what was cut: up to which place in the chain, and the hash the rest goes on from. The
database lets nothing go that is not sealed.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from core.context import Actor
from core.postgres import Connection, Pool
from service.audit.chain import LOCK_SQL, TENANTS_SQL
from service.audit.trail import Entry, record_entry

# Entries cut in one transaction, which keeps the others' links waiting.
BATCH: Final = 10_000

# The oldest entries of a chain, up to the first that is to stay.
OLD_SQL: Final = """
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


async def cut(pool: Pool, keep: timedelta) -> int:
    """Cut off what is older, a batch at a time.

    Args:
        pool: The service's pool.
        keep: How long entries stay.

    Returns:
        How many entries went.
    """
    async with pool.connection() as connection:
        tenants = await (await connection.execute(TENANTS_SQL)).fetchall()
        done = 0
        for tenant in [found["tenant"] for found in tenants]:
            while went := await _cut_batch(connection, tenant, keep):
                done += went
                if went < BATCH:
                    break
    return done


async def _cut_batch(connection: Connection, tenant: str, keep: timedelta) -> int:
    async with connection.transaction():
        await connection.execute(LOCK_SQL)
        wanted = {"tenant": tenant, "keep": keep, "limit": BATCH}
        old: dict[str, Any] | None = await (await connection.execute(OLD_SQL, wanted)).fetchone()
        if not (old and old["entries"]):
            return 0
        await connection.execute(SEAL_SQL, {**old, "tenant": tenant})
        await connection.execute(CUT_SQL, {"tenant": tenant, "position": old["position"]})
        details = {
            "entries": old["entries"],
            "oldest_at": _said(old["oldest"]),
            "newest_at": _said(old["newest"]),
        }
        by = Actor(tenant=tenant, user="retention")
        await record_entry(connection, Entry(action="retention", outcome="cut", details=details, actor=by))
    entries: int = old["entries"]
    return entries


def _said(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
