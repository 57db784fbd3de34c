"""From a request's ``Authorization`` header to who it is from."""

import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from core.errors import Unauthenticated
from core.postgres import Pool
from core.settings import AuthSettings
from service.auth.api_keys import PREFIX, KeyStore
from service.auth.authenticator import CredentialCache
from service.auth.principal import Identity, VerifiedCredential
from service.auth.tokens import IssuerKeys, TokenVerifier, fetched, read_from

# Longer than any token worth reading.
_MOST_CHARACTERS = 8_192


class Authenticator:
    """Verifies API keys and tokens.

    Args:
        keys: API keys; None: none are accepted.
        tokens: An issuer's tokens; None: none are accepted.
        cache: What was verified a moment ago.
    """

    def __init__(
        self, *, keys: KeyStore | None, tokens: TokenVerifier | None, cache: CredentialCache
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._cache = cache

    async def identify(self, authorization: str) -> Identity:
        """Who sends this header: ``Bearer <key or token>``, or ``Basic`` with the key as the password.

        Raises:
            Unauthenticated: There is none, or it is not good.
            IssuerUnavailable: A token's issuer could not be asked yet.
            psycopg.Error: The database cannot be reached.
        """
        return await self._cache.identity(credential_in(authorization), self._verify)

    async def _verify(self, credential: str) -> VerifiedCredential:
        if credential.startswith(PREFIX):
            if self._keys is None:
                raise Unauthenticated("API keys are not accepted here (AUTH_API_KEYS); send a token")
            return await self._keys.verify(credential)
        if self._tokens is None:
            raise Unauthenticated("what was sent is no API key (va_...), and tokens are not accepted here")
        return await self._tokens.verify(credential)


def credential_in(authorization: str) -> str:
    """The key or token in an ``Authorization`` header.

    ``Basic`` is what browsers can send by themselves, so that the playground and the documents can be used;
    its user's name is not looked at.

    Raises:
        Unauthenticated: There is none.
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
    if not value or len(value) > _MOST_CHARACTERS or not value.isascii():
        raise Unauthenticated("send an API key or a token as 'Authorization: Bearer <it>'")
    return value


@asynccontextmanager
async def open_authenticator(settings: AuthSettings, pool: Pool) -> AsyncIterator[Authenticator | None]:
    """What the settings ask for; None: nothing is asked of anyone.

    Args:
        settings: Which credentials are accepted.
        pool: The service's pool, for the keys' table, which is made by ``migrate``.
    """
    if not settings.enabled:
        yield None
        return
    async with AsyncExitStack() as stack:
        tokens = await _tokens(stack, settings)
        yield Authenticator(
            keys=KeyStore(pool) if settings.api_keys else None,
            tokens=tokens,
            cache=CredentialCache(seconds=settings.cache_seconds),
        )


async def _tokens(stack: AsyncExitStack, settings: AuthSettings) -> TokenVerifier | None:
    if settings.jwt_jwks_url:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=settings.jwt_jwks_timeout_seconds))
        source = fetched(http, settings.jwt_jwks_url)
    elif settings.jwt_jwks_file:
        source = read_from(settings.jwt_jwks_file)
    else:
        return None
    keys = IssuerKeys(
        source,
        timeout=settings.jwt_jwks_timeout_seconds,
        refresh_seconds=settings.jwt_jwks_refresh_seconds,
    )
    stack.push_async_callback(keys.aclose)
    return TokenVerifier(keys, settings)
