"""A body that LangServe can read: it takes some shapes for granted, and answers others with a 500."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request

from core.errors import InvalidRequest


async def require_readable(request: Request) -> None:
    """Check what LangServe does not; Starlette keeps what it has parsed, so nothing is parsed twice.

    Raises:
        InvalidRequest: The body is not JSON, or its ``config`` or ``inputs`` have another shape than theirs.
    """
    if request.method != "POST":
        return
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise InvalidRequest("body: it must be JSON in UTF-8, nested no deeper than a thousand") from None
    if not isinstance(body, Mapping):
        raise InvalidRequest("body: it must be an object")
    if not isinstance(body.get("inputs", []), list):
        raise InvalidRequest("inputs: it must be a list")
    _require_configs(body.get("config", {}))


def _require_configs(given: Any) -> None:
    """One config, or in a batch one for each input."""
    configs = given if isinstance(given, list) else [given]
    if not all(isinstance(config, Mapping) for config in configs):
        raise InvalidRequest("config: it must be an object; leave it out where there is nothing to say")
