"""Errors of the one tree as gRPC statuses, and back.

Beside its status an error travels in trailing metadata as JSON, the body that an error has over HTTP.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from grpc import StatusCode

from core.errors import MemoryRefused, MemoryUnavailable, NotFound, ServiceError

ERROR_KEY: Final = "ventros-error-bin"
# Metadata is kept within 8 KiB by most servers and proxies on the way.
MAX_ERROR_BYTES: Final = 4_096
REACHABILITY: Final = frozenset({StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED})

_STATUSES: Final[Mapping[int, StatusCode]] = {
    404: StatusCode.NOT_FOUND,
    422: StatusCode.INVALID_ARGUMENT,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
}
_SAID: Final[Mapping[StatusCode, str]] = {
    StatusCode.UNAVAILABLE: "the memory cannot be reached",
    StatusCode.DEADLINE_EXCEEDED: "the memory did not answer in time",
    StatusCode.UNAUTHENTICATED: "the memory does not accept MEMORY_GRPC_TOKEN",
    StatusCode.PERMISSION_DENIED: "the memory does not accept MEMORY_GRPC_TOKEN",
    StatusCode.UNIMPLEMENTED: "the memory does not have this method: it is of another version",
    StatusCode.RESOURCE_EXHAUSTED: "the memory is asked too much at once",
}


def to_status(error: ServiceError) -> tuple[StatusCode, str, bytes]:
    """The status, its message, and the JSON for :data:`ERROR_KEY`, empty where it would be too long."""
    body = {"error": error.code, "message": error.message, "details": error.details}
    packed = json.dumps(body, default=str).encode()
    status = _STATUSES.get(error.status, StatusCode.INTERNAL)
    return status, error.message, packed if len(packed) <= MAX_ERROR_BYTES else b""


def from_status(status: StatusCode, said: str, metadata: Iterable[tuple[str, str | bytes]]) -> ServiceError:
    """The error a caller of the port sees.

    Args:
        status: The call's.
        said: The status message.
        metadata: The trailing metadata.

    Returns:
        :class:`MemoryRefused` and :class:`NotFound` in the memory's own words; else
        :class:`MemoryUnavailable`, whose ``grpc_status`` is among its details.
    """
    body = _body(metadata)
    told = body.get("message")
    message = told if isinstance(told, str) else None
    details = body.get("details")
    known = details if isinstance(details, dict) else {}
    if status is StatusCode.INVALID_ARGUMENT:
        return MemoryRefused(message or said, details=known)
    if status is StatusCode.NOT_FOUND:
        return NotFound(message or said, details=known)
    words = message or _SAID.get(status) or f"the memory failed ({status.name})"
    return MemoryUnavailable(words, details={**known, "grpc_status": status.name})


def _body(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, object]:
    """The JSON of our own server; a proxy on the way, or another server, has none."""
    packed = next((value for key, value in metadata if key == ERROR_KEY), b"")
    try:
        body = json.loads(packed or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
