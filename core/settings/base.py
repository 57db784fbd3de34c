"""What every group of settings shares: where values are read from, and the checks several groups need."""

import json
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

# Containers mount secrets here as files, each named like its setting. The environment takes precedence.
SECRETS_DIR: Final = Path("/run/secrets")

Seconds = Annotated[float, Field(gt=0, le=86_400)]


def group_config(prefix: str) -> SettingsConfigDict:
    """Return the configuration of a group whose environment variables start with ``prefix``."""
    return SettingsConfigDict(
        env_prefix=prefix,
        env_file=".env",
        env_ignore_empty=True,
        secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None,
        extra="ignore",
        frozen=True,
    )


def check_http_address(address: str) -> str:
    """Return an HTTP address without a trailing slash.

    Raises:
        ValueError: It has another scheme, or names no host.
    """
    scheme, _, rest = address.rstrip("/").partition("://")
    if scheme not in {"http", "https"} or not rest:
        raise ValueError("must start with http:// or https:// and name a host")
    return f"{scheme}://{rest}"


def check_model_name(name: str) -> str:
    """Return a model's name.

    Raises:
        ValueError: It is not ``provider:model``.
    """
    if not all(name.partition(":")):
        raise ValueError("must be provider:model, e.g. google_genai:gemini-3.8-flash")
    return name


def parse_text_map(secret: SecretStr) -> dict[str, str]:
    """Parse a JSON object of texts.

    Raises:
        ValueError: It is something else. The message does not quote the value, which is a secret.
    """
    try:
        texts = json.loads(secret.get_secret_value() or "{}")
    except ValueError:
        # Without its cause, which would quote the value.
        raise ValueError("must be JSON") from None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("must be a JSON object of texts")
    return texts


def _check_header_value(key: SecretStr) -> SecretStr:
    value = key.get_secret_value()
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError("must be ASCII without spaces and line breaks, because it is sent in an HTTP header")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_check_header_value)]
