"""Whether the audit is as it was written."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from core.postgres import Connection, Pool
from service.audit.chain import Head, beginning, extend_chain
from service.audit.trail import COLUMNS

_PAGE: Final = 1_000

# What retention cuts meanwhile is not to look as if it were missing.
SNAPSHOT_SQL: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
TENANTS_SQL: Final = """
SELECT tenant FROM audit.entries UNION SELECT tenant FROM audit.seals ORDER BY tenant
"""
SEAL_SQL: Final = "SELECT position, hash FROM audit.seals WHERE tenant = %s ORDER BY position DESC LIMIT 1"
LINKS_SQL: Final = f"""
SELECT {COLUMNS} FROM audit.entries WHERE tenant = %s AND position > %s ORDER BY position LIMIT %s
"""  # noqa: S608 - constants
UNLINKED_SQL: Final = "SELECT count(*) AS n FROM audit.entries WHERE tenant = %s AND hash IS NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found of a tenant's chain.

    Attributes:
        tenant: Whose.
        entries: Links that are as they were made, up to the fault where there is one.
        cut: Entries that retention cut off before them.
        unlinked: Entries that wait for their place; in a service that runs, those of the last second.
        head: Where the chain ends, or breaks.
        fault: What is wrong with the first entry that is; empty: nothing.
    """

    tenant: str
    entries: int
    cut: int
    unlinked: int
    head: Head
    fault: str


async def verify(pool: Pool) -> AsyncIterator[Verdict]:
    """Follow each tenant's chain from its beginning, or from where it was cut."""
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(SNAPSHOT_SQL)
        cursor = await connection.execute(TENANTS_SQL)
        for row in await cursor.fetchall():
            yield await _verified(connection, row["tenant"])


async def _verified(connection: Connection, tenant: str) -> Verdict:
    seal = await (await connection.execute(SEAL_SQL, (tenant,))).fetchone()
    start = head = Head(seal["position"], seal["hash"]) if seal else beginning(tenant)
    fault = ""
    async for entry in _links(connection, tenant, start.position):
        due = extend_chain(head, tenant, entry)
        if fault := _fault(entry, due):
            break
        head = due
    waiting = await (await connection.execute(UNLINKED_SQL, (tenant,))).fetchone()
    return Verdict(
        tenant=tenant,
        entries=head.position - start.position,
        cut=start.position,
        unlinked=waiting["n"] if waiting else 0,
        head=head,
        fault=fault,
    )


async def _links(connection: Connection, tenant: str, after: int) -> AsyncIterator[dict[str, Any]]:
    while True:
        cursor = await connection.execute(LINKS_SQL.encode(), (tenant, after, _PAGE))
        page = await cursor.fetchall()
        for entry in page:
            yield entry
        if len(page) < _PAGE:
            return
        after = page[-1]["position"]


def _fault(entry: dict[str, Any], due: Head) -> str:
    if entry["position"] != due.position:
        return f"entry {due.position} is missing: {entry['position']} (id {entry['id']}) comes in its place"
    if entry["hash"] != due.hash:
        return f"entry {due.position} (id {entry['id']}, {entry['at'].isoformat()}) is not as it was written"
    return ""
