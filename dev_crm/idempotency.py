"""A request that comes twice with one Idempotency-Key has one effect and one answer.

See the IETF draft "The Idempotency-Key HTTP Header Field". Keys are scoped by endpoint and kept for good.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from core.postgres import Connection, Pool
from dev_crm.errors import KeyReused

# A second request with the key waits here until the first one's transaction ends: after a commit it finds
# the row, after a rollback it takes the key itself.
CLAIM_KEY_SQL = """
INSERT INTO crm.idempotency_keys (endpoint, key, fingerprint)
VALUES (%(endpoint)s, %(key)s, %(fingerprint)s)
ON CONFLICT (endpoint, key) DO NOTHING
"""

KEEP_ANSWER_SQL = """
UPDATE crm.idempotency_keys SET status = %(status)s, body = %(body)s
WHERE endpoint = %(endpoint)s AND key = %(key)s
"""

ANSWER_SQL = """
SELECT fingerprint = %(fingerprint)s AS same_request, status, body
FROM crm.idempotency_keys WHERE endpoint = %(endpoint)s AND key = %(key)s
"""

OK = 200
CREATED = 201

New = TypeVar("New", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request is answered with; ``replayed`` when an earlier one did the work."""

    status: int
    body: str
    replayed: bool


async def write_once(
    pool: Pool,
    *,
    endpoint: str,
    key: str | None,
    new: New,
    write: Callable[[Connection, New], Awaitable[BaseModel]],
    status: int = CREATED,
) -> Answer:
    """Write ``new``, unless a request with ``key`` did so already.

    The key and the effect are in one transaction: neither is ever there without the other. A request that
    is refused does not use its key up.

    Args:
        pool: The service's pool.
        endpoint: Scope of the key.
        key: The caller's key; ``None``: write whatever came before.
        new: What to write.
        write: Does it, on a connection inside the transaction.
        status: What a write that is done is answered with.

    Raises:
        KeyReused: The key came before with another body.
    """
    async with pool.connection() as connection, connection.transaction():
        if key is None:
            body = (await write(connection, new)).model_dump_json()
            return Answer(status=status, body=body, replayed=False)
        request: dict[str, object] = {
            "endpoint": endpoint,
            "key": key,
            "fingerprint": hashlib.sha256(new.model_dump_json().encode()).digest(),
        }
        claimed = await connection.execute(CLAIM_KEY_SQL, request)
        if not claimed.rowcount:
            return await _earlier_answer(connection, request)
        body = (await write(connection, new)).model_dump_json()
        await connection.execute(KEEP_ANSWER_SQL, {**request, "status": status, "body": body})
        return Answer(status=status, body=body, replayed=False)


async def _earlier_answer(connection: Connection, request: dict[str, object]) -> Answer:
    row = await (await connection.execute(ANSWER_SQL, request)).fetchone()
    if row is None or not row["same_request"]:
        raise KeyReused(
            "This Idempotency-Key was used with another body. Use a new key for a new request.",
            details={"idempotency_key": request["key"]},
        )
    return Answer(status=row["status"], body=row["body"], replayed=True)
