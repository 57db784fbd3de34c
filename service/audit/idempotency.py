"""Do things once: effects on the outside by their key, and requests by their idempotency key.

An effect is recorded before and after it is made. Each record is one statement together with its audit
entry, so both are stored or neither is.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from uuid import uuid4

import psycopg
from psycopg.rows import DictRow

from core.effects import Arguments, Outcome
from core.errors import (
    ClaimLost,
    CrmRefused,
    CrmUnauthorized,
    DatabaseUnavailable,
    EffectConflict,
    KeyReused,
    ServiceError,
)
from core.logging import get_logger
from core.postgres import CLAIM_LOST, DATABASE_UNAVAILABLE, Connection, Pool
from service.audit.trail import ENTRY_VALUES, INTO_ENTRIES, Entry

log = get_logger(__name__)

EffectState: TypeAlias = Literal["begun", "finished", "failed"]
# The other side received the request and refused it. After any other failure it may have made the effect.
REFUSALS: Final = (CrmRefused, CrmUnauthorized)

# Returns a row where the effect is to be made, for the first time or again. Fails where the run has lost its
# claim: the replica that has it now makes the effect.
BEGIN_EFFECT_SQL: Final = f"""
WITH begun AS (
    INSERT INTO audit.effects AS known (tenant, key, thread_id, run_id, action, arguments_hash, state)
    SELECT %(tenant)s, %(effect_key)s, %(thread)s, %(run)s, %(tool)s, %(arguments_hash)s, 'begun'
    WHERE %(attempt)s = 0 OR runs.require_claims(ARRAY[%(claim)s::uuid], ARRAY[%(attempt)s]) > 0
    ON CONFLICT (tenant, key) DO UPDATE SET
        state = 'begun', attempts = known.attempts + 1, run_id = excluded.run_id, ended_at = NULL
    WHERE known.state <> 'finished' AND known.action = excluded.action
      AND known.arguments_hash = excluded.arguments_hash
    RETURNING attempts
), audited AS (
    {INTO_ENTRIES}
    SELECT {ENTRY_VALUES} FROM begun
    RETURNING id
)
SELECT id FROM audited
"""  # noqa: S608 - constants
FIND_EFFECT_SQL: Final = """
SELECT action = %(tool)s AND arguments_hash = %(arguments_hash)s AS is_same, outcome
FROM audit.effects WHERE tenant = %(tenant)s AND key = %(effect_key)s
"""
# An upsert: unlike an UPDATE it waits for a row that is not committed yet, and makes the record again where
# the database has lost it. It makes none of a thread that was erased meanwhile. The entry gets its number
# when the record is locked, so that "begun" comes before "finished" in the audit trail.
END_EFFECT_SQL: Final = f"""
WITH ended AS (
    INSERT INTO audit.effects AS known
        (tenant, key, thread_id, run_id, action, arguments_hash, state, outcome, ended_at)
    SELECT %(tenant)s, %(effect_key)s, %(thread)s, %(run)s, %(tool)s, %(arguments_hash)s, %(state)s,
        %(effect_outcome)s::json, now()
    WHERE NOT EXISTS (
        SELECT FROM audit.entries WHERE tenant = %(tenant)s AND thread_id = %(thread)s
        AND action = 'erasure' AND id > %(begun_id)s
    )
    ON CONFLICT (tenant, key) DO UPDATE SET
        state = CASE known.state WHEN 'finished' THEN known.state ELSE excluded.state END,
        outcome = coalesce(known.outcome, excluded.outcome), ended_at = now()
    RETURNING key
), locked AS MATERIALIZED (
    SELECT count(*) AS records FROM ended
), audited AS (
    {INTO_ENTRIES}
    SELECT {ENTRY_VALUES} FROM locked
), announced AS (
    SELECT outbox.add_all(%(tenant)s, %(events)s::json) AS events
    FROM locked WHERE records > 0 AND %(events)s::json IS NOT NULL
)
SELECT records, (SELECT events FROM announced) FROM locked
"""  # noqa: S608 - constants
ERASE_EFFECTS_SQL: Final = "DELETE FROM audit.effects WHERE thread_id = %s"

# An expired key is free again. Of two requests that arrive at once, one finds the other.
CLAIM_KEY_SQL: Final = """
INSERT INTO audit.request_keys AS known (tenant, key_hash, id, fingerprint, thread_id, expires_at)
VALUES (%(tenant)s, %(key)s, %(id)s, %(fingerprint)s, %(thread)s, now() + %(hours)s * interval '1 hour')
ON CONFLICT (tenant, key_hash) DO UPDATE SET
    id = excluded.id, fingerprint = excluded.fingerprint, thread_id = excluded.thread_id,
    expires_at = excluded.expires_at
WHERE known.expires_at <= now()
RETURNING id
"""
FIND_KEY_SQL: Final = """
SELECT id::text, thread_id, fingerprint = %(fingerprint)s AS is_same
FROM audit.request_keys WHERE tenant = %(tenant)s AND key_hash = %(key)s
"""
DELETE_EXPIRED_KEYS_SQL: Final = "DELETE FROM audit.request_keys WHERE expires_at <= now()"
ERASE_KEYS_SQL: Final = "DELETE FROM audit.request_keys WHERE thread_id = %s"


# Returns the events that a finished effect makes true, as ``outbox.add_all`` takes them; ``None``: none.
Announce: TypeAlias = Callable[[str, Arguments, Outcome, str], str | None]


class RecordedEffects:
    """:class:`core.effects.Effects` in the service's Postgres: two small writes for each effect.

    Args:
        pool: The service's pool.
        announce: Describes the events of an effect by its action, arguments, outcome and key.
    """

    def __init__(self, pool: Pool, announce: Announce = lambda *_: None) -> None:
        self._pool = pool
        self._announce = announce

    async def run_once(
        self, key: str, action: str, arguments: Arguments, do: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        """Make an effect, or return its earlier outcome; see :class:`core.effects.Effects`."""
        begun = Entry(action="effect", tool=action, arguments=arguments, effect_key=key, outcome="begun")
        attempt = await self._begin(begun, _hash_json(arguments))
        if not isinstance(attempt, _Attempt):
            return attempt
        try:
            outcome = await do()
        except REFUSALS as refusal:
            await self._record_fault(attempt, "failed", refusal)
            raise
        except ServiceError as fault:
            await self._record_fault(attempt, "begun", fault)
            raise
        await self._end(
            attempt, "finished", "finished", outcome, events=self._announce(action, arguments, outcome, key)
        )
        return outcome

    async def _begin(self, begun: Entry, arguments_hash: bytes) -> "_Attempt | Outcome":
        """Record the start of an effect, or return the outcome of a finished one."""
        attempt = begun.actor.attempt
        parameters = {
            **begun.to_row(),
            "arguments_hash": arguments_hash,
            "attempt": attempt,
            "claim": begun.actor.run_id if attempt else None,
        }
        try:
            async with self._pool.connection() as connection:
                if entry := await _fetch_one(connection, BEGIN_EFFECT_SQL, parameters):
                    return _Attempt(begun, arguments_hash, entry["id"])
                known = await _fetch_one(connection, FIND_EFFECT_SQL, parameters)
        except psycopg.Error as error:
            if error.sqlstate == CLAIM_LOST:
                raise ClaimLost(f"{begun.tool} is left to the replica that executes the run now") from error
            if not isinstance(error, DATABASE_UNAVAILABLE):
                raise
            raise _refuse_unrecorded(begun) from error
        except DATABASE_UNAVAILABLE as error:
            raise _refuse_unrecorded(begun) from error
        if known is None:
            # The thread was erased between the two statements: nothing more may happen on it.
            raise DatabaseUnavailable(f"{begun.tool} was not done: its records were erased meanwhile")
        if not known["is_same"]:
            raise EffectConflict(
                f"{begun.tool} was not done: its idempotency key belongs to another effect",
                details={"idempotency_key": begun.effect_key},
            )
        outcome: Outcome = known["outcome"]
        return outcome

    async def _end(
        self,
        attempt: "_Attempt",
        state: EffectState,
        result: str,
        outcome: Outcome | None,
        *,
        events: str | None = None,
    ) -> None:
        begun = attempt.entry
        ended = Entry(
            action="effect",
            tool=begun.tool,
            effect_key=begun.effect_key,
            outcome=result,
            details={"id": outcome["id"]} if outcome and "id" in outcome else {},
            actor=begun.actor,
        )
        parameters = {
            **ended.to_row(),
            "arguments_hash": attempt.arguments_hash,
            "begun_id": attempt.entry_id,
            "state": state,
            "effect_outcome": None if outcome is None else json.dumps(outcome),
            "events": events,
        }
        try:
            async with self._pool.connection() as connection:
                row = await _fetch_one(connection, END_EFFECT_SQL, parameters)
        except DATABASE_UNAVAILABLE as error:
            raise DatabaseUnavailable(
                f"{begun.tool} was done, but that could not be recorded; resume the run: it is not done "
                "a second time",
                retry_after=2,
            ) from error
        if not row or row["records"] != 1:
            log.warning("effect_ended_on_an_erased_thread", tool=begun.tool, outcome=result)

    async def _record_fault(self, attempt: "_Attempt", state: EffectState, fault: ServiceError) -> None:
        """Record a fault. The caller gets the fault itself, also where it cannot be recorded."""
        try:
            await self._end(attempt, state, fault.code, None)
        except DatabaseUnavailable:
            log.warning("effect_fault_not_recorded", tool=attempt.entry.tool, error=fault.code)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt at an effect that is recorded as begun, with the id of its audit entry."""

    entry: Entry
    arguments_hash: bytes
    entry_id: int


def _refuse_unrecorded(begun: Entry) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"{begun.tool} was not done, as it could not be recorded; try again in a moment", retry_after=2
    )


async def erase_effects(connection: Connection, thread_id: str) -> None:
    """Delete a thread's effects in the caller's transaction; their redacted audit entries stay."""
    await connection.execute(ERASE_EFFECTS_SQL, (thread_id,))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyClaim:
    """A request that was given an idempotency key.

    Attributes:
        id: The same each time the request comes; another one once the key has expired.
        thread_id: The thread of the first request with the key.
        repeated: Whether the request came before.
    """

    id: str
    thread_id: str
    repeated: bool


class RequestKeys:
    """Idempotency keys of requests in the service's Postgres.

    See the IETF draft "The Idempotency-Key HTTP Header Field". Keys belong to a tenant.

    Args:
        pool: The service's pool.
        hours: How long a key is remembered.
    """

    def __init__(self, pool: Pool, *, hours: float) -> None:
        self._pool = pool
        self._hours = hours

    async def claim(
        self, tenant: str, key: str, request: Mapping[str, Any], *, thread_id: str = ""
    ) -> KeyClaim:
        """Claim a key for a request, or find the request that claimed it.

        Args:
            tenant: The tenant.
            key: The key the caller sent; only its hash is stored.
            request: The request as JSON; only its hash is stored.
            thread_id: The thread it will run on; empty: it finds its thread by other means.

        Raises:
            KeyReused: The key came with another request.
        """
        parameters = {
            "tenant": tenant,
            "key": hashlib.sha256(key.encode()).digest(),
            "id": str(uuid4()),
            "fingerprint": _hash_json(request),
            "thread": thread_id,
            "hours": self._hours,
        }
        async with self._pool.connection() as connection:
            while True:
                if row := await _fetch_one(connection, CLAIM_KEY_SQL, parameters):
                    return KeyClaim(id=str(row["id"]), thread_id=thread_id, repeated=False)
                if row := await _fetch_one(connection, FIND_KEY_SQL, parameters):
                    break
                # The key expired and was deleted between the two statements: it is free again.
        if not row["is_same"]:
            raise KeyReused(
                "this idempotency key, or message id, was used before with another request; a new request "
                "needs a new one"
            )
        return KeyClaim(id=row["id"], thread_id=row["thread_id"], repeated=True)

    async def delete_expired(self) -> int:
        """Delete the expired keys and return their number."""
        async with self._pool.connection() as connection:
            return (await connection.execute(DELETE_EXPIRED_KEYS_SQL)).rowcount


async def erase_request_keys(connection: Connection, thread_id: str) -> None:
    """Delete the keys of a thread's requests in the caller's transaction."""
    await connection.execute(ERASE_KEYS_SQL, (thread_id,))


def _hash_json(value: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()


async def _fetch_one(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> DictRow | None:
    return await (await connection.execute(statement.encode(), parameters)).fetchone()
