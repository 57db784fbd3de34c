"""API keys: ``va_<id>_<secret>``. What is kept of one cannot be turned back into it."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

# Tells scanners of leaked secrets, and people, what it is.
PREFIX = "va_"
_ID_BYTES = 8
_SECRET_BYTES = 32
_FORM = re.compile(r"va_(?P<id>[0-9a-f]{16})_(?P<secret>[\w-]{43})")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; nobody will see its text again.

    Attributes:
        id: Names it in lists and in the record.
        text: The whole of it.
        digest: What is kept.
    """

    id: str
    text: str
    digest: bytes


def new_key() -> NewKey:
    """A key nobody can guess: 256 random bits."""
    key_id = secrets.token_hex(_ID_BYTES)
    text = f"{PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return NewKey(id=key_id, text=text, digest=digest(text))


def digest(text: str) -> bytes:
    """SHA-256 of the key.

    A slow hash is for secrets that people choose; 256 random bits cannot be tried out (NIST SP 800-63B,
    look-up secrets of at least 112 bits).
    """
    return hashlib.sha256(text.encode()).digest()


def key_id(text: str) -> str | None:
    """The id in a key; None for what has not the form of one."""
    found = _FORM.fullmatch(text)
    return found["id"] if found else None


def matches(text: str, kept: bytes) -> bool:
    """Whether it is the key whose digest was kept, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(digest(text), kept)
