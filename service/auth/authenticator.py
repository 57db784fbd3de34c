"""Authenticate requests: from the ``Authorization`` header to the caller's identity."""

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from core.errors import Unauthenticated
from core.postgres import Pool
from core.settings import AuthSettings
from service.auth.api_keys import PREFIX, KeyStore
from service.auth.principal import Identity, VerifiedCredential
from service.auth.tokens import TokenVerifier, open_token_verifier

# Longer than any valid token.
_MAX_CREDENTIAL_CHARACTERS = 8_192
# A flood of unknown keys must not use up the pool's connections.
_MAX_KEY_LOOKUPS = 4

Verify: TypeAlias = Callable[[str], Awaitable[VerifiedCredential]]


class Authenticator:
    """Verifies API keys and tokens.

    Args:
        keys: The API keys; None: API keys are not accepted.
        tokens: Verifies an issuer's tokens; None: tokens are not accepted.
        cache: Credentials that were verified recently.
    """

    def __init__(
        self, *, keys: KeyStore | None, tokens: TokenVerifier | None, cache: "CredentialCache"
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._cache = cache
        # Of key look-ups alone: tokens that wait for their issuer must not delay them.
        self._key_lookups = asyncio.Semaphore(_MAX_KEY_LOOKUPS)

    async def identify(self, authorization: str) -> Identity:
        """Return the caller who sent this ``Authorization`` header.

        Args:
            authorization: ``Bearer <key or token>``, or ``Basic`` with the key or token as the password.

        Raises:
            Unauthenticated: There is no credential, or it is not valid.
            IssuerUnavailable: The token's issuer could not be reached yet.
            psycopg.Error: The database cannot be reached.
        """
        return await self._cache.get_identity(parse_credential(authorization), self._verify)

    async def _verify(self, credential: str) -> VerifiedCredential:
        if credential.startswith(PREFIX):
            if self._keys is None:
                raise Unauthenticated("API keys are not accepted here (AUTH_API_KEYS); send a token")
            async with self._key_lookups:
                return await self._keys.verify(credential)
        if self._tokens is None:
            raise Unauthenticated(
                "the credential is not an API key (va_...), and tokens are not accepted here"
            )
        return await self._tokens.verify(credential)


@dataclass(frozen=True, slots=True)
class _CachedIdentity:
    identity: Identity
    expires_at: float


class CredentialCache:
    """Caches valid credentials, so that most requests cost one hash and one dictionary look-up.

    Rejected credentials are not cached: a key may be created the moment after. Concurrent requests with the
    same credential share one verification.

    Args:
        seconds: How long a credential is trusted without another look, so also how long a revoked one works.
        size: Maximum number of credentials; the one verified longest ago is evicted first.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, *, seconds: float, size: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._cached: dict[bytes, _CachedIdentity] = {}
        self._pending: dict[bytes, asyncio.Task[Identity]] = {}

    async def get_identity(self, credential: str, verify: Verify) -> Identity:
        """Return the owner of a credential.

        Args:
            credential: A key or a token.
            verify: Verifies a credential that is not cached; its exceptions reach everyone who waits.
        """
        # A memory dump must not show credentials, so the hash is the key.
        digest = hashlib.sha256(credential.encode()).digest()
        cached = self._cached.get(digest)
        if cached is not None and cached.expires_at > self._clock():
            return cached.identity
        pending = self._pending.get(digest)
        if pending is None:
            pending = self._pending[digest] = asyncio.create_task(self._load(digest, credential, verify))
            pending.add_done_callback(_mark_exception_retrieved)
        # A request that is cancelled must not cancel the verification for the others.
        return await asyncio.shield(pending)

    async def _load(self, digest: bytes, credential: str, verify: Verify) -> Identity:
        try:
            verified = await verify(credential)
        finally:
            del self._pending[digest]
        seconds = self._seconds if verified.seconds is None else min(self._seconds, verified.seconds)
        self._cached.pop(digest, None)
        while len(self._cached) >= self._size:
            del self._cached[next(iter(self._cached))]
        self._cached[digest] = _CachedIdentity(verified.identity, self._clock() + seconds)
        return verified.identity


def parse_credential(authorization: str) -> str:
    """Return the key or token in an ``Authorization`` header.

    ``Basic`` is what browsers can send by themselves, so that the playground and the API documentation work
    there; the user name is ignored.

    Raises:
        Unauthenticated: The header contains no credential.
    """
    scheme, _, value = authorization.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            value = ""
    elif scheme.lower() != "bearer":
        value = ""
    if not value or len(value) > _MAX_CREDENTIAL_CHARACTERS or not value.isascii():
        raise Unauthenticated("send an API key or a token as 'Authorization: Bearer <key or token>'")
    return value


def open_authenticator(settings: AuthSettings, pool: Pool) -> Authenticator | None:
    """Return the authenticator the settings configure; None: authentication is off.

    Args:
        settings: Which credentials are accepted.
        pool: The service's pool, for the table of keys.
    """
    if not settings.enabled:
        return None
    return Authenticator(
        keys=KeyStore(pool) if settings.api_keys else None,
        tokens=open_token_verifier(settings),
        cache=CredentialCache(seconds=settings.cache_seconds),
    )


def _mark_exception_retrieved(task: asyncio.Task[Identity]) -> None:
    """Retrieve the task's exception: everyone who waited for it may have left."""
    if not task.cancelled():
        task.exception()
