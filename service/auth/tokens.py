"""Verify an issuer's JSON Web Tokens (RFC 7519) as RFC 8725 asks, with the keys the issuer publishes."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jwt

from core.errors import IssuerUnavailable, Unauthenticated
from core.logging import get_logger
from core.settings import AuthSettings
from service.auth.principal import SCOPES, Identity, Scope, VerifiedCredential

log = get_logger(__name__)

# Reads the issuer's key set; blocks, so it is called in a thread.
KeySetReader: TypeAlias = Callable[[], jwt.PyJWKSet]

# Signatures that need no shared secret; nothing else is accepted, whatever a token's header says.
ALGORITHMS = ("RS256", "ES256")
# Tenants and users appear in rows, metadata and logs.
NAME_PATTERN = re.compile(r"[\w.:@+|/-]{1,200}")
# Between two reads of the key set, however many tokens name keys the issuer does not list.
MIN_READ_INTERVAL_SECONDS = 10.0


class IssuerKeys:
    """Caches an issuer's signing keys.

    ``jwt.PyJWKClient`` has a cache of its own, which forgets a set that has expired: an issuer that is down
    for longer would take the service along. Here the last set stays in use until a new one is read, requests
    with a known key never wait for the issuer, and at most one read runs at a time.

    Args:
        read: Reads the key set.
        timeout: Seconds a request waits for a read.
        refresh_seconds: The age at which the set is read again.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        read: KeySetReader,
        *,
        timeout: float,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._timeout = timeout
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._tried_at = float("-inf")
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def get(self, kid: str | None) -> jwt.PyJWK:
        """Return the key a token names, or the only key where the token names none.

        Raises:
            Unauthenticated: The issuer does not list the key.
            IssuerUnavailable: No key set could be read yet.
        """
        key = self._find(kid)
        if key is None or self._clock() >= self._read_at + self._refresh_seconds:
            self._start_reading()
        if key is None and self._reading:
            await asyncio.wait([self._reading], timeout=self._timeout)
            key = self._find(kid)
        if key is not None:
            return key
        if not self._keys:
            raise IssuerUnavailable(
                "the token issuer's keys (AUTH_JWT_JWKS_URL) cannot be read; try again in a moment",
                retry_after=MIN_READ_INTERVAL_SECONDS,
            )
        raise Unauthenticated("the token is signed with a key that its issuer does not list")

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _start_reading(self) -> None:
        # A thread cannot be cancelled: while an issuer hangs, no second read is started.
        if self._reading is None and self._clock() >= self._tried_at + MIN_READ_INTERVAL_SECONDS:
            self._tried_at = self._clock()
            self._reading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        try:
            key_set = await asyncio.to_thread(self._read)
            keys: dict[str | None, jwt.PyJWK] = {
                key.key_id: key
                for key in key_set.keys
                if key.public_key_use in {"sig", None} and key.algorithm_name in ALGORITHMS
            }
        except (jwt.PyJWTError, OSError, ValueError) as error:
            keys, reason = {}, str(error) or type(error).__name__
        else:
            reason = f"it lists no public key for {' or '.join(ALGORITHMS)}"
        finally:
            self._reading = None
        if keys:
            self._keys, self._read_at = keys, self._clock()
        else:
            log.warning("issuer_keys_not_read", reason=reason, cached_keys=len(self._keys))


class TokenVerifier:
    """Verifies an issuer's tokens.

    Args:
        keys: The issuer's keys.
        settings: Issuer, audience, leeway and the names of the claims.
    """

    def __init__(self, keys: IssuerKeys, settings: AuthSettings) -> None:
        self._keys = keys
        self._settings = settings

    async def verify(self, token: str) -> VerifiedCredential:
        """Return the identity a token vouches for.

        Raises:
            Unauthenticated: The token's form, signature, issuer, audience, times or claims are wrong.
            IssuerUnavailable: The issuer's keys could not be read yet.
        """
        try:
            key = await self._keys.get(_read_kid(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=self._settings.jwt_leeway_seconds,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
            lifetime = float(claims["exp"]) - min(time.time(), float(claims.get("iat", "inf")))
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not valid: {error}") from error
        except (OverflowError, TypeError, ValueError) as error:
            raise Unauthenticated("the token is not valid: its times must be numbers") from error
        longest = self._settings.jwt_max_lifetime_seconds
        if not lifetime <= longest + self._settings.jwt_leeway_seconds:
            raise Unauthenticated(
                f"the token is valid for more than {longest:g} s (AUTH_JWT_MAX_LIFETIME_SECONDS); use one "
                "that expires earlier"
            )
        seconds = float(claims["exp"]) + self._settings.jwt_leeway_seconds - time.time()
        return VerifiedCredential(self._build_identity(claims), seconds)

    def _build_identity(self, claims: Mapping[str, Any]) -> Identity:
        return Identity(
            tenant=_read_name(claims, self._settings.jwt_tenant_claim),
            user=_read_name(claims, self._settings.jwt_user_claim),
            scopes=_read_scopes(claims.get(self._settings.jwt_scopes_claim)),
            credential="token",
        )


def open_token_verifier(settings: AuthSettings) -> TokenVerifier | None:
    """Return the verifier the settings configure; None: tokens are not accepted."""
    timeout = settings.jwt_jwks_timeout_seconds
    read: KeySetReader
    if settings.jwt_jwks_url:
        client = jwt.PyJWKClient(settings.jwt_jwks_url, cache_jwk_set=False, timeout=timeout)
        read = client.get_jwk_set
    elif settings.jwt_jwks_file:
        read = partial(_read_key_set_file, settings.jwt_jwks_file)
    else:
        return None
    keys = IssuerKeys(read, timeout=timeout, refresh_seconds=settings.jwt_jwks_refresh_seconds)
    return TokenVerifier(keys, settings)


def _read_key_set_file(path: Path) -> jwt.PyJWKSet:
    return jwt.PyJWKSet.from_json(path.read_text(encoding="utf-8"))


def _read_kid(token: str) -> str | None:
    header = jwt.get_unverified_header(token)
    if header.get("alg") not in ALGORITHMS:
        raise Unauthenticated(f"the token must be signed with {' or '.join(ALGORITHMS)}")
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def _read_name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        raise Unauthenticated(
            f"the token's claim {claim!r} must be a name: 1 to 200 letters, digits, or any of _ . : @ + | / -"
        )
    return value


def _read_scopes(claim: Any) -> frozenset[Scope]:
    """Return our scopes among the token's: a text with spaces (RFC 8693) or a list."""
    values = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(scope for scope in SCOPES if scope in values)
