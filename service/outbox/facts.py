"""Tell of facts that a memory service of its own has learned: it shares no transaction with the outbox."""

from collections.abc import Sequence

from core.errors import MemoryUnavailable
from core.memory import FactChange, Scope
from core.postgres import DATABASE_UNAVAILABLE, Pool
from service.outbox.catalogue import FactLearned
from service.outbox.events import ADD_SQL, NewEvent, dump_events


async def announce_facts(pool: Pool, scope: Scope, changes: Sequence[FactChange]) -> None:
    """Write an event for each fact that none was written for, before whoever stated it is answered.

    A process that dies in between has not answered. Its caller states the facts again, and they are told of
    then, as repetitions. So a fact that was known before anybody received events is told of when it is
    stated again.

    Raises:
        MemoryUnavailable: The events could not be written: the facts have to be stated again.
    """
    events = [_build_event(scope, change) for change in changes]
    try:
        async with pool.connection() as connection:
            await connection.execute(ADD_SQL, {"tenant": scope.tenant, "events": dump_events(events)})
    except DATABASE_UNAVAILABLE as error:
        raise MemoryUnavailable("the facts were stored, but not told of; state them again") from error


def _build_event(scope: Scope, change: FactChange) -> NewEvent:
    fact = change.fact
    data = FactLearned(
        contact_id=scope.contact_id,
        fact_id=fact.id,
        subject=fact.subject,
        predicate=fact.predicate,
        object=fact.object,
        confidence=fact.confidence,
        valid_from=fact.valid_from,
        valid_to=fact.valid_to,
        source_message_id=fact.source_message_id,
    )
    once = f"fact:{scope.contact_id}:{fact.id}"
    return NewEvent(data=data, thread_id="", contact_id=scope.contact_id, once=once)
