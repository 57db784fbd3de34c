"""Tokens of an issuer: JSON Web Tokens (RFC 7519), checked as RFC 8725 asks."""

import re
import time
from collections.abc import Mapping
from typing import Any

import jwt

from core.errors import Unauthenticated
from core.settings import AuthSettings
from service.auth.principal import SCOPES, Identity, Scope, VerifiedCredential
from service.auth.tokens import ALGORITHMS, IssuerKeys

# What names a tenant or a user in rows, metadata and logs.
NAME = re.compile(r"[\w.:@+|/-]{1,200}")


class Tokens:
    """Verifies an issuer's tokens.

    Args:
        keys: The issuer's.
        settings: Issuer, audience, leeway and the names of the claims.
    """

    def __init__(self, keys: IssuerKeys, settings: AuthSettings) -> None:
        self._keys = keys
        self._settings = settings

    async def verify(self, token: str) -> VerifiedCredential:
        """Whose a token is.

        Raises:
            Unauthenticated: Its form, signature, issuer, audience, time or claims are not right.
            IssuerUnavailable: The issuer's keys could not be had yet.
        """
        try:
            key = await self._keys.key(_key_id(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=self._settings.jwt_leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not good: {error}") from error
        left = float(claims["exp"]) + self._settings.jwt_leeway_seconds - time.time()
        return VerifiedCredential(self._identity(claims), left)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        return Identity(
            tenant=_name(claims, self._settings.jwt_tenant_claim),
            user=_name(claims, self._settings.jwt_user_claim),
            scopes=_scopes(claims.get(self._settings.jwt_scopes_claim)),
            credential="token",
        )


def _key_id(token: str) -> str | None:
    header = jwt.get_unverified_header(token)
    if header.get("alg") not in ALGORITHMS:
        raise Unauthenticated(f"the token must be signed with {' or '.join(ALGORITHMS)}")
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Unauthenticated(f"the token's claim {claim!r} names nobody: a text of 1 to 200 characters")
    return value


def _scopes(claim: Any) -> frozenset[Scope]:
    """Ours among the token's: a text with spaces (RFC 8693) or a list."""
    given = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(scope for scope in SCOPES if scope in given)
