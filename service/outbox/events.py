"""Write events into the outbox, delete old ones, and erase those of a thread or a contact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from core.postgres import Connection, Pool
from core.tasks import Scheduler
from core.texts import make_storable
from service.outbox.catalogue import EventData

# In one transaction.
_BATCH: Final = 5_000
CLEANUP_SECONDS: Final = 3_600.0

# What has yet to be delivered goes too: a receiver that was away for so long has lost it.
DELETE_OLD_SQL: Final = """
DELETE FROM outbox.events WHERE position IN (
    SELECT position FROM outbox.events WHERE at < now() - %(days)s * interval '1 day' LIMIT %(limit)s
)
"""
ADD_SQL: Final = "SELECT outbox.add_all(%(tenant)s, %(events)s::json)"
ERASE_EVENTS_SQL: Final = "DELETE FROM outbox.events WHERE thread_id = %s"
ERASE_THREAD_SQL: Final = "DELETE FROM outbox.threads WHERE thread_id = %s"
ERASE_FACTS_SQL: Final = """
DELETE FROM outbox.events WHERE tenant = %(tenant)s AND contact_id = %(contact)s AND type = 'fact.learned'
  AND (%(session)s = '' OR thread_id = %(session)s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to write in the transaction that makes it true.

    Attributes:
        data: What happened; its class is the type.
        thread_id: The thread it is about; empty: none.
        contact_id: The contact it is about; empty: none.
        once: A name under which it is written once; empty: what makes it true happens once.
    """

    data: EventData
    thread_id: str
    contact_id: str = ""
    once: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the event as ``outbox.add_all`` takes it."""
        return {
            "type": self.data.type,
            "version": self.data.version,
            "thread_id": self.thread_id,
            "contact_id": self.contact_id,
            "data": self.data.model_dump(mode="json"),
            "once": self.once,
        }


def dump_events(events: Sequence[NewEvent]) -> str | None:
    """Return events as a statement passes them to ``outbox.add_all``; ``None``: there are none."""
    if not events:
        return None
    # Texts of models and people: one that Postgres refuses must not stop what the event tells of.
    return orjson.dumps([_clean(event.to_row()) for event in events]).decode()


def _clean(value: Any) -> Any:
    match value:
        case str():
            return make_storable(value)
        case dict():
            return {make_storable(key): _clean(item) for key, item in value.items()}
        case list():
            return [_clean(item) for item in value]
        case _:
            return value


def maintain_outbox(scheduler: Scheduler, pool: Pool, *, keep_days: float) -> None:
    """Have events deleted when they are too old."""

    async def delete_old() -> None:
        values = {"days": keep_days, "limit": _BATCH}
        deleted = _BATCH
        while deleted == _BATCH:
            async with pool.connection() as connection:
                deleted = (await connection.execute(DELETE_OLD_SQL, values)).rowcount

    scheduler.every("outbox-cleanup", delete_old, seconds=CLEANUP_SECONDS)


async def erase_events(connection: Connection, thread_id: str) -> None:
    """Delete a thread's events, delivered or not, in the caller's transaction."""
    await connection.execute(ERASE_EVENTS_SQL, (thread_id,))
    await connection.execute(ERASE_THREAD_SQL, (thread_id,))


async def erase_facts(connection: Connection, tenant: str, contact_id: str, session_id: str) -> None:
    """Delete the events of what was learned of a contact, or in one session, in the caller's transaction."""
    values = {"tenant": tenant, "contact": contact_id, "session": session_id}
    await connection.execute(ERASE_FACTS_SQL, values)
