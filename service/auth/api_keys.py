"""API keys (``va_<id>_<secret>``) in Postgres: create, list, rotate, revoke and verify them."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from psycopg.rows import DictRow

from core.errors import NotFound, Unauthenticated
from core.postgres import Connection, Pool
from service.auth.principal import Identity, Scope, VerifiedCredential

# Identifies the key to people and to scanners for leaked secrets.
PREFIX = "va_"
_ID_BYTES = 8
_SECRET_BYTES = 32
_KEY_PATTERN = re.compile(r"va_(?P<id>[0-9a-f]{16})_(?P<secret>[\w-]{43})")

CREATE_SQL = """
INSERT INTO auth.api_keys (id, tenant, user_id, scopes, digest, expires_at)
VALUES (%(id)s, %(tenant)s, %(user)s, %(scopes)s, %(digest)s, now() + %(lifetime)s)
"""
# The successor copies everything but the secret, and has the lifetime the old key had.
ROTATE_SQL = """
INSERT INTO auth.api_keys (id, tenant, user_id, scopes, digest, expires_at)
SELECT %(id)s, tenant, user_id, scopes, %(digest)s, now() + (expires_at - created_at)
FROM auth.api_keys WHERE id = %(old)s AND revoked_at IS NULL AND rotated_to IS NULL
  AND (expires_at IS NULL OR expires_at > now())
FOR UPDATE
RETURNING tenant, scopes
"""
RETIRE_SQL = """
UPDATE auth.api_keys SET rotated_to = %(id)s, expires_at = least(expires_at, now() + %(grace)s)
WHERE id = %(old)s
"""
REVOKE_SQL = """
UPDATE auth.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s
RETURNING tenant, scopes
"""
LIST_SQL = """
SELECT id, tenant, user_id, scopes, created_at, expires_at, revoked_at, last_used_at,
       revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS is_valid
FROM auth.api_keys WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s
ORDER BY tenant, created_at, id
"""
VERIFY_SQL = """
SELECT tenant, user_id, scopes, digest, revoked_at IS NOT NULL AS is_revoked,
       extract(epoch FROM expires_at - now())::float8 AS seconds,
       coalesce(last_used_at < now() - interval '1 minute', true) AS needs_touch
FROM auth.api_keys WHERE id = %s
"""
TOUCH_SQL = "UPDATE auth.api_keys SET last_used_at = now() WHERE id = %s"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just created; its text is never shown again.

    Attributes:
        id: The public id, used in lists and in the audit trail.
        text: The whole key.
        digest: SHA-256 of the text, the only form that is stored.
    """

    id: str
    text: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A change to a key.

    Attributes:
        change: What was done.
        id: The key's public id; after a rotation, the successor's.
        tenant: The key's tenant.
        scopes: What the key may do.
    """

    change: Literal["created", "rotated", "revoked"]
    id: str
    tenant: str
    scopes: Sequence[Scope]


# Records a change in the transaction that makes it.
ChangeRecorder: TypeAlias = Callable[[Connection, KeyChange], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """A key as lists show it. Times have a zone.

    Attributes:
        id: The public id.
        tenant: The key's tenant.
        user_id: The user who acts with it.
        scopes: What it may do.
        created_at: When it was created.
        expires_at: When it expires; None: never.
        revoked_at: When it was revoked; None: it was not.
        last_used_at: When it was last verified, to the minute; None: never.
        is_valid: Whether it may be used now.
    """

    id: str
    tenant: str
    user_id: str
    scopes: Sequence[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    is_valid: bool


class KeyStore:
    """API keys in the service's Postgres.

    Args:
        pool: The service's pool.
        record: Records each change; None: changes are not recorded.
    """

    def __init__(self, pool: Pool, record: ChangeRecorder | None = None) -> None:
        self._pool = pool
        self._record = record

    async def create(
        self, tenant: str, scopes: Sequence[Scope], *, user: str = "", lifetime: timedelta | None = None
    ) -> NewKey:
        """Create a key.

        Args:
            tenant: The key's tenant.
            scopes: What it may do.
            user: The user who acts with it; empty: named after the key.
            lifetime: How long it is valid; None: until it is revoked.
        """
        key = generate_key()
        parameters = {
            "id": key.id,
            "tenant": tenant,
            "user": user or f"key-{key.id}",
            "scopes": list(scopes),
            "digest": key.digest,
            "lifetime": lifetime,
        }
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(CREATE_SQL, parameters)
            await self._record_change(connection, "created", key.id, {"tenant": tenant, "scopes": scopes})
        return key

    async def rotate(self, old: str, *, grace: timedelta) -> NewKey:
        """Create a successor of a key; the old key expires after ``grace``.

        Raises:
            NotFound: There is no such key, or it is no longer valid.
        """
        key = generate_key()
        parameters: dict[str, Any] = {"id": key.id, "digest": key.digest, "old": old, "grace": grace}
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(ROTATE_SQL, parameters)).fetchone()
            if row is None:
                raise NotFound(f"there is no valid key {old!r} to rotate", details={"id": old})
            await connection.execute(RETIRE_SQL, parameters)
            await self._record_change(connection, "rotated", key.id, row)
        return key

    async def revoke(self, key_id: str) -> None:
        """Revoke a key; services that have just verified it notice within ``AUTH_CACHE_SECONDS``.

        Raises:
            NotFound: There is no such key.
        """
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(REVOKE_SQL, (key_id,))).fetchone()
            if row is None:
                raise NotFound(f"there is no key {key_id!r}", details={"id": key_id})
            await self._record_change(connection, "revoked", key_id, row)

    async def list_keys(self, tenant: str | None = None) -> list[KeyEntry]:
        """Return a tenant's keys; None: the keys of all tenants."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(LIST_SQL, {"tenant": tenant})).fetchall()
        return [KeyEntry(**row) for row in rows]

    async def verify(self, text: str) -> VerifiedCredential:
        """Return the owner of a key.

        Raises:
            Unauthenticated: The text is not a key, or the key is unknown, revoked or expired.
            psycopg.Error: The database cannot be reached.
        """
        key_id = parse_key_id(text)
        if key_id is None:
            raise Unauthenticated("the API key is malformed: a key has the form va_<id>_<secret>")
        async with self._pool.connection() as connection:
            row = await (await connection.execute(VERIFY_SQL, (key_id,))).fetchone()
            # Compared in constant time, so that the response time does not tell how much of it is right.
            if row is None or not hmac.compare_digest(hash_key(text), row["digest"]):
                raise Unauthenticated(
                    "the API key is not known; create one with `python -m service.cli.keys create`"
                )
            _check_validity(row)
            if row["needs_touch"]:
                await connection.execute(TOUCH_SQL, (key_id,))
        identity = Identity(row["tenant"], row["user_id"], frozenset(row["scopes"]), f"key {key_id}")
        return VerifiedCredential(identity, row["seconds"])

    async def _record_change(
        self,
        connection: Connection,
        change: Literal["created", "rotated", "revoked"],
        key_id: str,
        row: DictRow,
    ) -> None:
        if self._record:
            await self._record(connection, KeyChange(change=change, id=key_id, **row))


def generate_key() -> NewKey:
    """Return a new key with a secret of 256 random bits."""
    key_id = secrets.token_hex(_ID_BYTES)
    text = f"{PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return NewKey(id=key_id, text=text, digest=hash_key(text))


def hash_key(text: str) -> bytes:
    """Return the SHA-256 of a key.

    A slow hash protects secrets that people choose; 256 random bits cannot be guessed (NIST SP 800-63B,
    look-up secrets of at least 112 bits).
    """
    return hashlib.sha256(text.encode()).digest()


def parse_key_id(text: str) -> str | None:
    """Return the public id in a key; None where the text does not have the form of a key."""
    match = _KEY_PATTERN.fullmatch(text)
    return match["id"] if match else None


def _check_validity(row: DictRow) -> None:
    # Only a caller who has the secret gets this far, so the reason may be told.
    if row["is_revoked"]:
        raise Unauthenticated("the API key was revoked; ask for another")
    if row["seconds"] is not None and row["seconds"] <= 0:
        raise Unauthenticated("the API key has expired; ask for another")
