"""The outbox in tests: have every event kept, and read what is in it."""

from typing import Any

import jsonschema

from core.postgres import Pool
from service.outbox.catalogue import CATALOGUE, ApprovalNeeded, build_envelope
from service.outbox.events import NewEvent, dump_events

KEEP_SQL = "INSERT INTO outbox.brokers (name, expires_at) VALUES ('test', 'infinity')"
READ_SQL = """
SELECT position, id, tenant, type, version, thread_id, contact_id, sequence, data, at FROM outbox.events
ORDER BY position
"""


async def keep_events(pool: Pool) -> None:
    """Have events written as if a broker were set up."""
    async with pool.connection() as connection:
        await connection.execute(KEEP_SQL)


async def add_events(pool: Pool, thread_id: str, count: int, *, tenant: str = "default") -> None:
    """Write events of a thread, each in a transaction of its own."""
    for number in range(count):
        data = ApprovalNeeded(approval_id=f"{number}.{thread_id}", run_id="r", graph="react", tool="")
        events = dump_events([NewEvent(data=data, thread_id=thread_id)])
        async with pool.connection() as connection:
            await connection.execute("SELECT outbox.add_all(%s, %s::json)", (tenant, events))


async def read_events(pool: Pool, *types: str) -> list[dict[str, Any]]:
    """Return the events in the outbox as receivers see them; their data must fit the catalogue's schemas."""
    async with pool.connection() as connection:
        rows = await (await connection.execute(READ_SQL)).fetchall()
    events = [build_envelope(row) for row in rows]
    for event in events:
        jsonschema.validate(event["data"], CATALOGUE[event["type"]].model_json_schema())
    return [event for event in events if not types or event["type"] in types]
