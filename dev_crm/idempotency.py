"""Give a request that is repeated with the same Idempotency-Key one effect and one response.

See the IETF draft "The Idempotency-Key HTTP Header Field". Keys are scoped by endpoint and do not expire.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Header, Response
from pydantic import BaseModel

from core.postgres import Connection, Pool
from dev_crm.api import KeyReused

# A second request with the key waits here until the first one's transaction ends: after a commit it finds
# the row, after a rollback it claims the key itself.
CLAIM_KEY_SQL = """
INSERT INTO crm.idempotency_keys (endpoint, key, fingerprint)
VALUES (%(endpoint)s, %(key)s, %(fingerprint)s)
ON CONFLICT (endpoint, key) DO NOTHING
"""

STORE_RESPONSE_SQL = """
UPDATE crm.idempotency_keys SET status = %(status)s, body = %(body)s
WHERE endpoint = %(endpoint)s AND key = %(key)s
"""

GET_RESPONSE_SQL = """
SELECT fingerprint = %(fingerprint)s AS same_request, status, body
FROM crm.idempotency_keys WHERE endpoint = %(endpoint)s AND key = %(key)s
"""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x20-\x7E]+$",
        description="A request with the same key and body gets the first response and has no second effect",
    ),
]

New = TypeVar("New", bound=BaseModel)


async def write_once(
    pool: Pool,
    *,
    endpoint: str,
    key: str | None,
    new: New,
    write: Callable[[Connection, New], Awaitable[BaseModel]],
    status: int = 201,
) -> Response:
    """Write ``new`` unless an earlier request with ``key`` did, and return the response to either.

    The key and the effect are written in one transaction, so neither exists without the other. A request
    that is refused does not use up its key. A replayed response carries ``Idempotency-Replayed: true``.

    Args:
        pool: The service's pool.
        endpoint: Scope of the key.
        key: The caller's key; ``None`` writes unconditionally.
        new: What to write.
        write: Writes it, on a connection inside the transaction, and returns the response body.
        status: HTTP status of a successful write.

    Raises:
        KeyReused: The key was used before with another body.
    """
    async with pool.connection() as connection, connection.transaction():
        if key is None:
            return _json_response((await write(connection, new)).model_dump_json(), status)
        request: dict[str, object] = {
            "endpoint": endpoint,
            "key": key,
            "fingerprint": hashlib.sha256(new.model_dump_json().encode()).digest(),
        }
        claimed = await connection.execute(CLAIM_KEY_SQL, request)
        if not claimed.rowcount:
            return await _replay_response(connection, request)
        body = (await write(connection, new)).model_dump_json()
        await connection.execute(STORE_RESPONSE_SQL, {**request, "status": status, "body": body})
        return _json_response(body, status)


async def _replay_response(connection: Connection, request: dict[str, object]) -> Response:
    row = await (await connection.execute(GET_RESPONSE_SQL, request)).fetchone()
    if row is None or not row["same_request"]:
        raise KeyReused(
            "This Idempotency-Key was used with another body. Use a new key for a new request.",
            details={"idempotency_key": request["key"]},
        )
    return _json_response(row["body"], row["status"], {"Idempotency-Replayed": "true"})


def _json_response(body: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")
