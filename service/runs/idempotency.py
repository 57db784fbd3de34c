"""``Idempotency-Key``: a request that comes again with its key is answered as the first one was.

While the first one runs, the second waits on its thread and gets its answer (:mod:`service.runs.replay`);
where the first one broke off, a crash included, the second goes on with its run.
"""

from collections.abc import Mapping
from typing import Any

from core.errors import InvalidRequest
from service.audit.idempotency import KeyClaim
from service.auth.principal import Identity
from service.lifespan import Service

HEADER = "Idempotency-Key"
_LONGEST = 255


async def claim(
    service: Service, identity: Identity, key: str, request: Mapping[str, Any], *, thread_id: str = ""
) -> KeyClaim:
    """Take the key in the request's header.

    Raises:
        InvalidRequest: It is no key.
        KeyReused: It came with another request.
    """
    if not (1 <= len(key) <= _LONGEST and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"{HEADER} has 1 to {_LONGEST} printable ASCII characters")
    return await service.requests.claim(identity.tenant, f"header\n{key}", request, thread_id=thread_id)


async def claim_message(
    service: Service, identity: Identity, *, contact_id: str, message_id: str, text: str
) -> None:
    """Take a message's id, which its sender gave it, for its text.

    Raises:
        KeyReused: It came with another text.
    """
    key = f"message\n{contact_id}\n{message_id}"
    await service.requests.claim(identity.tenant, key, {"message": text})
