"""Effects on the outside, recorded before and after they are made; the audit's entries are written with them.

Each record is one statement, so one transaction: it and its entry are there together or not at all.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from psycopg.rows import DictRow

from core.effects import Arguments, Outcome
from core.errors import CrmRefused, CrmUnauthorized, DatabaseUnavailable, EffectConflict, ServiceError
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Connection, Pool
from service.audit.trail import ENTRY_VALUES, INSERT_SQL, INTO_ENTRIES, Entry

log = get_logger(__name__)

State: TypeAlias = Literal["begun", "finished", "failed"]
# The other side heard it and would not do it. Whatever else went wrong, it may have done it.
REFUSALS: Final = (CrmRefused, CrmUnauthorized)

# Gives a row where the effect is to be made, now or again.
BEGIN_SQL: Final = f"""
WITH begun AS (
    INSERT INTO audit.effects AS known (tenant, key, thread_id, run_id, action, arguments_hash, state)
    VALUES (%(tenant)s, %(effect_key)s, %(thread)s, %(run)s, %(tool)s, %(arguments_hash)s, 'begun')
    ON CONFLICT (tenant, key) DO UPDATE SET
        state = 'begun', attempts = known.attempts + 1, run_id = excluded.run_id, ended_at = NULL
    WHERE known.state <> 'finished' AND known.action = excluded.action
      AND known.arguments_hash = excluded.arguments_hash
    RETURNING attempts
), audited AS (
    {INTO_ENTRIES}
    SELECT {ENTRY_VALUES} FROM begun
)
SELECT attempts FROM begun
"""  # noqa: S608 - constants
KNOWN_SQL: Final = """
SELECT action = %(tool)s AND arguments_hash = %(arguments_hash)s AS same, outcome
FROM audit.effects WHERE tenant = %(tenant)s AND key = %(effect_key)s
"""
# The entry is written even where the record is gone by now: its thread may have been erased meanwhile.
END_SQL: Final = f"""
WITH ended AS (
    UPDATE audit.effects SET state = %(state)s, outcome = %(effect_outcome)s::json, ended_at = now()
    WHERE tenant = %(tenant)s AND key = %(effect_key)s AND state = 'begun'
)
{INSERT_SQL}
"""  # noqa: S608 - constants
ERASE_SQL: Final = "DELETE FROM audit.effects WHERE thread_id = %s"


class RecordedEffects:
    """:class:`core.effects.Effects` on the service's Postgres: two small writes an effect.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def run_once(
        self, key: str, action: str, arguments: Arguments, do: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        """Make an effect, or give the outcome it had; see the port."""
        digest = _hash(arguments)
        begun = Entry(action="effect", tool=action, arguments=arguments, effect_key=key, outcome="begun")
        known = await self._begin(begun, digest)
        if known is not None:
            return known
        try:
            outcome = await do()
        except REFUSALS as refusal:
            await self._not_made(begun, "failed", refusal)
            raise
        except ServiceError as fault:
            await self._not_made(begun, "begun", fault)
            raise
        await self._end(begun, "finished", "finished", outcome)
        return outcome

    async def _begin(self, begun: Entry, digest: bytes) -> Outcome | None:
        """The outcome of an effect that is finished; ``None`` when it is to be made, which is recorded."""
        parameters = {**begun.row(), "arguments_hash": digest}
        try:
            async with self._pool.connection() as connection:
                if await _one(connection, BEGIN_SQL, parameters):
                    return None
                known = await _one(connection, KNOWN_SQL, parameters)
        except DATABASE_UNAVAILABLE as error:
            raise DatabaseUnavailable(
                f"{begun.tool} was not done, as it could not be recorded; ask again in a moment",
                retry_after=2,
            ) from error
        if known is None:
            # Its thread was erased between the two statements: nothing is to happen on it any more.
            raise DatabaseUnavailable(f"{begun.tool} was not done: its records were erased meanwhile")
        if not known["same"]:
            raise EffectConflict(
                f"{begun.tool} was not done: its idempotency key stands for another effect",
                details={"idempotency_key": begun.effect_key},
            )
        outcome: Outcome = known["outcome"]
        return outcome

    async def _end(self, begun: Entry, state: State, said: str, outcome: Outcome | None) -> None:
        identity = {"id": outcome["id"]} if outcome and "id" in outcome else {}
        ended = Entry(
            action="effect",
            tool=begun.tool,
            effect_key=begun.effect_key,
            outcome=said,
            details=identity,
            actor=begun.actor,
        )
        stored = None if outcome is None else json.dumps(outcome)
        try:
            async with self._pool.connection() as connection:
                await connection.execute(
                    END_SQL.encode(), {**ended.row(), "state": state, "effect_outcome": stored}
                )
        except DATABASE_UNAVAILABLE as error:
            raise DatabaseUnavailable(
                f"{begun.tool} was done, but that could not be recorded; go on with the run: it is not done "
                "a second time",
                retry_after=2,
            ) from error

    async def _not_made(self, begun: Entry, state: State, fault: ServiceError) -> None:
        """Record a fault. It is what the caller must hear of, also where no record can be made."""
        try:
            await self._end(begun, state, fault.code, None)
        except DatabaseUnavailable:
            log.warning("effect_fault_not_recorded", tool=begun.tool, error=fault.code)


async def erase_effects(connection: Connection, thread_id: str) -> None:
    """Delete a thread's records of effects, in the caller's transaction. The redacted audit of them stays."""
    await connection.execute(ERASE_SQL, (thread_id,))


def _hash(arguments: Arguments) -> bytes:
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).digest()


async def _one(connection: Connection, statement: str, given: Mapping[str, Any]) -> DictRow | None:
    return await (await connection.execute(statement.encode(), given)).fetchone()
