"""API keys in Postgres: made, listed, rotated, revoked, and asked whether one is good."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from psycopg.rows import DictRow

from core.errors import NotFound, Unauthenticated
from core.postgres import Connection, Pool
from service.auth.api_keys import NewKey, key_id, matches, new_key
from service.auth.principal import Identity, Scope, VerifiedCredential

CREATE_SQL = """
INSERT INTO auth.api_keys (id, tenant, user_id, scopes, digest, expires_at)
VALUES (%(id)s, %(tenant)s, %(user)s, %(scopes)s, %(digest)s, now() + %(lasts)s)
"""
# The new key is the old one's in everything but its secret, and lasts as long as the old one was to.
SUCCEED_SQL = """
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
       revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS good
FROM auth.api_keys WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s
ORDER BY tenant, created_at, id
"""
VERIFY_SQL = """
SELECT tenant, user_id, scopes, digest, revoked_at IS NOT NULL AS revoked,
       extract(epoch FROM expires_at - now())::float8 AS seconds,
       coalesce(last_used_at < now() - interval '1 minute', true) AS unused
FROM auth.api_keys WHERE id = %s
"""
USED_SQL = "UPDATE auth.api_keys SET last_used_at = now() WHERE id = %s"

_UNKNOWN = "the API key is not known; make one with `python -m service.cli.keys create`"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """What was done to a key.

    Attributes:
        change: What it was.
        id: Names the key; of one that was rotated, its successor.
        tenant: Whose.
        scopes: What it may do.
    """

    change: Literal["created", "rotated", "revoked"]
    id: str
    tenant: str
    scopes: Sequence[Scope]


# Writes a change down, in the transaction that makes it.
Recorder: TypeAlias = Callable[[Connection, KeyChange], Awaitable[None]]


async def _unrecorded(_connection: Connection, _change: KeyChange) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """A key as lists show it. Times have a zone.

    Attributes:
        id: Names it.
        tenant: Whose.
        user_id: Who acts with it.
        scopes: What it may do.
        created_at: When it was made.
        expires_at: When it ends by itself; None: never.
        revoked_at: When it was revoked; None: it was not.
        last_used_at: When it was last looked up, to the minute; None: never.
        good: Whether it may be used now.
    """

    id: str
    tenant: str
    user_id: str
    scopes: Sequence[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    good: bool


class KeyStore:
    """API keys, on the service's Postgres.

    Args:
        pool: The service's pool.
        record: Is told of each change.
    """

    def __init__(self, pool: Pool, record: Recorder = _unrecorded) -> None:
        self._pool = pool
        self._record = record

    async def create(
        self, tenant: str, scopes: Sequence[Scope], *, user: str = "", lasts: timedelta | None = None
    ) -> NewKey:
        """Make a key.

        Args:
            tenant: Whose.
            scopes: What it may do.
            user: Who acts with it; empty: named after the key.
            lasts: How long it is good; None: until it is revoked.
        """
        key = new_key()
        given = {"tenant": tenant, "user": user or f"key-{key.id}", "scopes": list(scopes), "lasts": lasts}
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(CREATE_SQL, {**given, "id": key.id, "digest": key.digest})
            await self._record(
                connection, KeyChange(change="created", id=key.id, tenant=tenant, scopes=scopes)
            )
        return key

    async def rotate(self, old: str, *, grace: timedelta) -> NewKey:
        """Make a key that takes another's place; the old one ends after ``grace``.

        Raises:
            NotFound: There is no such key, or it may not be used any more.
        """
        key = new_key()
        given: dict[str, Any] = {"id": key.id, "digest": key.digest, "old": old, "grace": grace}
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(SUCCEED_SQL, given)).fetchone()
            if row is None:
                raise NotFound(f"there is no key {old!r} that could be rotated", details={"id": old})
            await connection.execute(RETIRE_SQL, given)
            await self._record(connection, KeyChange(change="rotated", id=key.id, **row))
        return key

    async def revoke(self, revoked: str) -> None:
        """End a key now; services that have just verified it notice within ``AUTH_CACHE_SECONDS``.

        Raises:
            NotFound: There is no such key.
        """
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(REVOKE_SQL, (revoked,))).fetchone()
            if row is None:
                raise NotFound(f"there is no key {revoked!r}", details={"id": revoked})
            await self._record(connection, KeyChange(change="revoked", id=revoked, **row))

    async def entries(self, tenant: str | None = None) -> list[KeyEntry]:
        """A tenant's keys; None: everybody's."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(LIST_SQL, {"tenant": tenant})).fetchall()
        return [KeyEntry(**row) for row in rows]

    async def verify(self, text: str) -> VerifiedCredential:
        """Whose a key is.

        Raises:
            Unauthenticated: It is not a key, not known, revoked, or its time is over.
            psycopg.Error: The database cannot be reached.
        """
        named = key_id(text)
        if named is None:
            raise Unauthenticated("the API key has not the form of one: va_<id>_<secret>")
        async with self._pool.connection() as connection:
            row = await (await connection.execute(VERIFY_SQL, (named,))).fetchone()
            if row is None or not matches(text, row["digest"]):
                raise Unauthenticated(_UNKNOWN)
            _require_good(row)
            if row["unused"]:
                await connection.execute(USED_SQL, (named,))
        identity = Identity(row["tenant"], row["user_id"], frozenset(row["scopes"]), f"key {named}")
        return VerifiedCredential(identity, row["seconds"])


def _require_good(row: DictRow) -> None:
    # Told to who has the secret alone.
    if row["revoked"]:
        raise Unauthenticated("the API key was revoked; ask for another")
    if row["seconds"] is not None and row["seconds"] <= 0:
        raise Unauthenticated("the API key's time is over; ask for another")
