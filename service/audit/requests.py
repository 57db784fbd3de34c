"""Requests that came with a key: what comes again finds the first one's thread, and is not another request.

See the IETF draft "The Idempotency-Key HTTP Header Field". Keys are a tenant's, and live for some hours.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from psycopg.rows import DictRow

from core.errors import KeyReused
from core.postgres import Connection, Pool

# A key whose time is over is as good as one that never came. Of two that come at once, one finds the other.
CLAIM_SQL: Final = """
INSERT INTO audit.request_keys AS known (tenant, key_hash, id, fingerprint, thread_id, expires_at)
VALUES (%(tenant)s, %(key)s, %(id)s, %(fingerprint)s, %(thread)s, now() + %(hours)s * interval '1 hour')
ON CONFLICT (tenant, key_hash) DO UPDATE SET
    id = excluded.id, fingerprint = excluded.fingerprint, thread_id = excluded.thread_id,
    expires_at = excluded.expires_at
WHERE known.expires_at <= now()
RETURNING id
"""
KNOWN_SQL: Final = """
SELECT id::text, thread_id, fingerprint = %(fingerprint)s AS same
FROM audit.request_keys WHERE tenant = %(tenant)s AND key_hash = %(key)s
"""
SWEEP_SQL: Final = "DELETE FROM audit.request_keys WHERE expires_at <= now()"
ERASE_SQL: Final = "DELETE FROM audit.request_keys WHERE thread_id = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A request's place among those with keys.

    Attributes:
        id: The same each time the request comes; another one once the key has expired.
        thread_id: The thread of the first one.
        repeated: Whether it came before.
    """

    id: str
    thread_id: str
    repeated: bool


class Requests:
    """Keys of requests, on the service's Postgres.

    Args:
        pool: The service's pool.
        hours: How long a key is known.
    """

    def __init__(self, pool: Pool, *, hours: float) -> None:
        self._pool = pool
        self._hours = hours

    async def claim(
        self, tenant: str, key: str, request: Mapping[str, Any], *, thread_id: str = ""
    ) -> Claimed:
        """Take a key for a request, or find the one that took it.

        Args:
            tenant: Whose key.
            key: What the caller sent; only its hash is kept.
            request: What is asked, as JSON; only its hash is kept.
            thread_id: The thread it will be on; empty: it finds it by other means.

        Raises:
            KeyReused: The key came with another request.
        """
        given = {
            "tenant": tenant,
            "key": hashlib.sha256(key.encode()).digest(),
            "id": str(uuid4()),
            "fingerprint": hashlib.sha256(json.dumps(request, sort_keys=True).encode()).digest(),
            "thread": thread_id,
            "hours": self._hours,
        }
        async with self._pool.connection() as connection:
            while True:
                if row := await _one(connection, CLAIM_SQL, given):
                    return Claimed(id=str(row["id"]), thread_id=thread_id, repeated=False)
                if row := await _one(connection, KNOWN_SQL, given):
                    break
                # It expired and was swept between the two: it is free again.
        if not row["same"]:
            raise KeyReused(
                "this idempotency key, or message id, came before with another request; a new request needs "
                "a new one"
            )
        return Claimed(id=row["id"], thread_id=row["thread_id"], repeated=True)

    async def sweep(self) -> int:
        """Forget the keys whose time is over.

        Returns:
            How many.
        """
        async with self._pool.connection() as connection:
            return (await connection.execute(SWEEP_SQL)).rowcount


async def erase_requests(connection: Connection, thread_id: str) -> None:
    """Forget the keys of a thread's requests, in the caller's transaction."""
    await connection.execute(ERASE_SQL, (thread_id,))


async def _one(connection: Connection, statement: str, given: Mapping[str, Any]) -> DictRow | None:
    return await (await connection.execute(statement.encode(), given)).fetchone()
