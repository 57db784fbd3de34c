"""Tenants with API keys, and an issuer that signs tokens."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from core.settings import AuthSettings
from service.auth.api_keys import KeyStore
from service.auth.principal import SCOPES, Scope
from service.lifespan import Service

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "ventros-agents"
WITH_KEYS = AuthSettings(api_keys=True)
# Every scope by its own name.
ALL_BUT_ADMIN: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope != "admin")


def bearer(credential: str) -> dict[str, str]:
    """Return the header that carries a credential."""
    return {"Authorization": f"Bearer {credential}"}


async def key_of(service: Service, tenant: str, *scopes: Scope) -> dict[str, str]:
    """Return the header with a new key of a tenant; with every scope where none is named."""
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
        """Return the JSON Web Key Set of some keys, or of all."""
        return json.dumps({"keys": [self.listed(kid) for kid in kids or self.private]}).encode()

    def listed(self, kid: str) -> dict[str, Any]:
        """Return a key as a set lists it."""
        public = self.private[kid].public_key()
        form = ECAlgorithm if isinstance(public, ec.EllipticCurvePublicKey) else RSAAlgorithm
        return {**form.to_jwk(public, as_dict=True), "kid": kid, "use": "sig"}

    def token(self, kid: str = "ec-1", *, algorithm: str = "", key: Any = None, **claims: Any) -> str:
        """Return a token that is valid for five minutes; a claim that is None is left out."""
        payload: Mapping[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ana",
            "tenant": "acme",
            "scope": "runs other",
            "exp": time.time() + 300,
            **claims,
        }
        return jwt.encode(
            {name: value for name, value in payload.items() if value is not None},
            key or self.private[kid],
            algorithm=algorithm or ("ES256" if kid.startswith("ec") else "RS256"),
            headers={"kid": kid},
        )


@dataclass
class KeySetSource:
    """An issuer's key set, which may be unavailable or hang; counts how often it is read."""

    body: bytes = b""
    unavailable: bool = False
    reads: int = 0
    now: float = 1_000.0
    gate: threading.Event | None = None

    def read(self) -> jwt.PyJWKSet:
        self.reads += 1
        if self.gate:
            self.gate.wait(60)
        if self.unavailable:
            raise jwt.PyJWKClientConnectionError("refused")
        return jwt.PyJWKSet.from_json(self.body.decode())
