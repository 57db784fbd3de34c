"""What the gRPC client and server share: names, limits, TLS files, and errors as statuses.

Besides its status an error travels in trailing metadata as JSON, in the form of an error body over HTTP.
"""

import json
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from grpc import StatusCode

from core.errors import MemoryRefused, MemoryUnavailable, NotFound, ServiceError, StartupError
from memory.proto import memory_pb2 as pb

SERVICE: Final[str] = pb.DESCRIPTOR.services_by_name["MemoryService"].full_name
# Promised in memory.proto.
MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
# How often a client sends a ping, also between calls.
KEEPALIVE_SECONDS: Final = 30

ERROR_KEY: Final = "ventros-error-bin"
# Most servers and proxies limit metadata to 8 KiB.
MAX_ERROR_BYTES: Final = 4_096
# Statuses that mean that the server was not reached, or not in time.
UNREACHABLE_STATUSES: Final = frozenset({StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED})

_STATUSES: Final[Mapping[int, StatusCode]] = {
    404: StatusCode.NOT_FOUND,
    422: StatusCode.INVALID_ARGUMENT,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
}
_MESSAGES: Final[Mapping[StatusCode, str]] = {
    StatusCode.UNAVAILABLE: "the memory cannot be reached",
    StatusCode.DEADLINE_EXCEEDED: "the memory did not answer in time",
    StatusCode.UNAUTHENTICATED: "the memory does not accept MEMORY_GRPC_TOKEN",
    StatusCode.PERMISSION_DENIED: "the memory does not accept MEMORY_GRPC_TOKEN",
    StatusCode.UNIMPLEMENTED: "the memory does not have this method; it is of another version",
    StatusCode.RESOURCE_EXHAUSTED: "the memory received too many or too large requests",
}


def read_authorities(file: Path) -> bytes:
    """Read the certificate authorities that a client trusts.

    Raises:
        StartupError: The file cannot be read, or holds no certificate.
    """
    content = _read_file(file, "MEMORY_GRPC_CA_FILE")
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise StartupError(
            f"MEMORY_GRPC_CA_FILE {str(file)!r} holds no certificate in PEM: {error}"
        ) from error
    return content


def read_key_and_certificate(key: Path, certificate: Path) -> tuple[bytes, bytes]:
    """Read a server's key and certificate; gRPC itself would only say that it cannot listen.

    Raises:
        StartupError: A file cannot be read, or the two do not belong together.
    """
    pair = _read_file(key, "MEMORY_SERVE_KEY_FILE"), _read_file(certificate, "MEMORY_SERVE_CERT_FILE")
    try:
        # Without a password argument, OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise StartupError(
            "MEMORY_SERVE_CERT_FILE and MEMORY_SERVE_KEY_FILE must be a certificate and its unencrypted key, "
            f"in PEM: {error}"
        ) from error
    return pair


def _read_file(file: Path, setting: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {setting} {str(file)!r}: {error.strerror}") from error


def to_status(error: ServiceError) -> tuple[StatusCode, str, bytes]:
    """Return an error's status, message, and JSON for :data:`ERROR_KEY`; no JSON if it is too long."""
    body = {"error": error.code, "message": error.message, "details": error.details}
    document = json.dumps(body, default=str).encode()
    status = _STATUSES.get(error.status, StatusCode.INTERNAL)
    return status, error.message, document if len(document) <= MAX_ERROR_BYTES else b""


def from_status(status: StatusCode, text: str, metadata: Iterable[tuple[str, str | bytes]]) -> ServiceError:
    """Return the error that a caller of the port sees.

    Args:
        status: The status of the call.
        text: The status message.
        metadata: The trailing metadata.

    Returns:
        :class:`MemoryRefused` or :class:`NotFound` with the server's message, or else
        :class:`MemoryUnavailable` with ``grpc_status`` among its details.
    """
    body = _parse_body(metadata)
    message = body.get("message")
    if not isinstance(message, str):
        message = ""
    details = body.get("details")
    if not isinstance(details, dict):
        details = {}
    if status is StatusCode.INVALID_ARGUMENT:
        return MemoryRefused(message or text, details=details)
    if status is StatusCode.NOT_FOUND:
        return NotFound(message or text, details=details)
    message = message or _MESSAGES.get(status) or f"the memory failed ({status.name})"
    return MemoryUnavailable(message, details={**details, "grpc_status": status.name})


def _parse_body(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, object]:
    """Parse the JSON of our own server; proxies and other servers send none."""
    document = next((value for key, value in metadata if key == ERROR_KEY), b"")
    try:
        body = json.loads(document or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
