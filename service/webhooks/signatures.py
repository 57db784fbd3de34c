"""Signatures of webhooks, as the Standard Webhooks specification 1.0 says (https://www.standardwebhooks.com).

A dozen lines, so that the specification's own library only verifies them, in the tests.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"
# The specification asks for 24 to 64.
_SECRET_BYTES: Final = 32


def create_secret() -> str:
    """Return a new random secret, as receivers are given it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(body: bytes, *, webhook_id: str, timestamp: int, keys: Iterable[str]) -> dict[str, str]:
    """Return the headers that identify and sign a webhook.

    Args:
        body: The body exactly as it is sent.
        webhook_id: The same for each attempt, so that a receiver recognises a repetition.
        timestamp: Of the attempt, in seconds since the epoch; receivers refuse old ones.
        keys: The endpoint's secrets. During a rotation there are two, and a receiver accepts either.
    """
    content = f"{webhook_id}.{timestamp}.".encode() + body
    signatures = [
        base64.b64encode(
            hmac.digest(base64.b64decode(key.removeprefix(PREFIX)), content, hashlib.sha256)
        ).decode()
        for key in keys
    ]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
