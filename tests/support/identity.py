"""Tenants with keys, and an issuer that signs tokens."""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from service.auth.api_keys import KeyStore

from core.settings import AuthSettings
from service.auth.principal import SCOPES, Scope
from service.lifespan import Service

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "ventros-agents"
WITH_KEYS = AuthSettings(api_keys=True)
# Every scope by its own name, which no admin is.
ALL_BUT_ADMIN: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope != "admin")


def bearer(credential: str) -> dict[str, str]:
    """The header that carries it."""
    return {"Authorization": f"Bearer {credential}"}


async def key_of(service: Service, tenant: str, *scopes: Scope) -> dict[str, str]:
    """The header of a new key of a tenant's, with every scope where none is named."""
    made = await KeyStore(service.pool).create(tenant, scopes or ALL_BUT_ADMIN)
    return bearer(made.text)


class Issuer:
    """Signs tokens with an elliptic-curve and an RSA key, and lists both."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {
            "ec-1": ec.generate_private_key(ec.SECP256R1()),
            "rsa-1": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        }

    def key_set(self, *kids: str) -> bytes:
        """The JSON Web Key Set, of some keys or all."""
        return json.dumps({"keys": [self.listed(kid) for kid in kids or self.private]}).encode()

    def listed(self, kid: str) -> dict[str, Any]:
        """A key as a set lists it."""
        public = self.private[kid].public_key()
        form = ECAlgorithm if isinstance(public, ec.EllipticCurvePublicKey) else RSAAlgorithm
        return {**form.to_jwk(public, as_dict=True), "kid": kid, "use": "sig"}

    def token(self, kid: str = "ec-1", *, algorithm: str = "", key: Any = None, **claims: Any) -> str:
        """A token that is good for five minutes; a claim that is None is left out."""
        said: Mapping[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ana",
            "tenant": "acme",
            "scope": "runs other",
            "exp": time.time() + 300,
            **claims,
        }
        return jwt.encode(
            {name: value for name, value in said.items() if value is not None},
            key or self.private[kid],
            algorithm=algorithm or ("ES256" if kid.startswith("ec") else "RS256"),
            headers={"kid": kid},
        )
