"""The keys an issuer signs with (RFC 7517), fetched, kept and refreshed."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from core.errors import IssuerUnavailable, Unauthenticated
from core.logging import get_logger

log = get_logger(__name__)

Source: TypeAlias = Callable[[], Awaitable[bytes]]

# Signatures that need no shared secret; what a token's header says is looked up here and nowhere else.
ALGORITHMS = ("RS256", "ES256")
# Between two looks at the issuer, however many tokens name keys it does not have.
MIN_INTERVAL_SECONDS = 10.0
_MOST_BYTES = 256 * 1024
_LEAST_RSA_BITS = 2048


def fetched(http: httpx.AsyncClient, url: str) -> Source:
    """The set at an address; redirects are not followed."""

    async def read() -> bytes:
        async with http.stream("GET", url, headers={"Accept": "application/json"}) as response:
            response.raise_for_status()
            if response.is_redirect:
                raise ValueError("it answers with a redirect; name where that leads")
            got = b""
            async for chunk in response.aiter_bytes():
                got += chunk
                if len(got) > _MOST_BYTES:
                    raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
            return got

    return read


def read_from(path: Path) -> Source:
    """The set in a file, which may be replaced while the service runs."""
    return lambda: asyncio.to_thread(path.read_bytes)


class SigningKeys:
    """An issuer's current keys.

    An old set goes on being used while a new one cannot be had: an issuer that is away for a while must not
    take the service along. A key the issuer withdrew meanwhile is good until it answers again.

    Args:
        source: Reads the set.
        timeout: Seconds one reading may take.
        refresh_seconds: After so long the set is read again.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        source: Source,
        *,
        timeout: float,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._timeout = timeout
        self._refresh = refresh_seconds
        self._clock = clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._tried_at = float("-inf")
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def key(self, kid: str | None) -> jwt.PyJWK:
        """The key a token names, or the only one there is where it names none.

        Raises:
            Unauthenticated: The issuer has no such key.
            IssuerUnavailable: No set could be had yet.
        """
        found = self._find(kid)
        if found is None:
            if self._reading or self._may_ask():
                await asyncio.shield(self._started())
            found = self._find(kid)
        elif self._may_ask() and self._clock() >= self._read_at + self._refresh:
            # Nobody waits for it: the key is known.
            self._started()
        if found is not None:
            return found
        if not self._keys:
            raise IssuerUnavailable(
                "the issuer's keys (AUTH_JWT_JWKS_URL) cannot be had; ask again in a moment",
                retry_after=MIN_INTERVAL_SECONDS,
            )
        raise Unauthenticated("the token is signed with a key its issuer does not list")

    async def aclose(self) -> None:
        """End a reading that is on its way."""
        if self._reading:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self._reading = None

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _may_ask(self) -> bool:
        return self._clock() >= self._tried_at + MIN_INTERVAL_SECONDS

    def _started(self) -> asyncio.Task[None]:
        """The reading on its way, begun if there is none."""
        if self._reading is None:
            self._tried_at = self._clock()
            self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                self._keys = usable_keys(await self._source())
            self._read_at = self._clock()
        except (httpx.HTTPError, OSError, TimeoutError, ValueError) as error:
            log.warning(
                "issuer_keys_not_read", reason=str(error) or type(error).__name__, kept=len(self._keys)
            )
        finally:
            self._reading = None


def usable_keys(body: bytes) -> dict[str | None, jwt.PyJWK]:
    """The keys of a set that may sign tokens, by their id; others in it are left out.

    Raises:
        ValueError: It is no set, or has none that may.
    """
    told = json.loads(body)
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise ValueError('it is no JSON Web Key Set: {"keys": [...]}')  # noqa: TRY004 - it is told as a fault of the data
    keys = {key.key_id: key for key in map(_usable, listed) if key is not None}
    if not keys:
        raise ValueError(f"it lists no public key for {' or '.join(ALGORITHMS)}")
    return keys


def _usable(listed: Any) -> jwt.PyJWK | None:
    if not isinstance(listed, dict) or listed.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(listed)
    except jwt.PyJWTError:
        return None
    match key.key:
        case RSAPublicKey(key_size=bits) if key.algorithm_name == "RS256" and bits >= _LEAST_RSA_BITS:
            return key
        case EllipticCurvePublicKey(curve=SECP256R1()) if key.algorithm_name == "ES256":
            return key
    return None
