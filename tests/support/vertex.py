"""A service account of Google Cloud: its key file, and the check of the assertions that it signs."""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.exchange import Json

PROJECT: Final = "acme-crm"
TOKEN_PATH: Final = "/token"
_EMAIL: Final = f"agents@{PROJECT}.iam.gserviceaccount.com"
# Whatever the key file's token_uri is, google-auth signs for this audience.
_AUDIENCE: Final = "https://oauth2.googleapis.com/token"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


@lru_cache(maxsize=1)
def _make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account with a generated key."""

    key: rsa.RSAPrivateKey = field(default_factory=_make_key)

    def write_key_file(self, folder: Path, server_url: str) -> Path:
        """Write the key file that the Cloud console offers, whose tokens a server issues."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        content = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "key-1",
            "private_key": private.decode(),
            "client_email": _EMAIL,
            "client_id": "1",
            "token_uri": f"{server_url}{TOKEN_PATH}",
        }
        file = folder / "google.json"
        file.write_text(json.dumps(content))
        return file

    def has_signed(self, form: Json) -> bool:
        """Tell whether a token request holds an assertion of this account for the whole platform."""
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return False
        try:
            claims = jwt.decode(
                form["assertion"],
                self.key.public_key(),
                algorithms=["RS256"],
                audience=_AUDIENCE,
                issuer=_EMAIL,
                options={"require": ["exp", "iat"]},
            )
        except jwt.InvalidTokenError:
            return False
        return bool(claims["scope"] == _SCOPE)
