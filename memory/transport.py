"""What both ends of the wire agree on."""

import ssl
from pathlib import Path
from typing import Final

from core.errors import StartupError
from memory.proto import memory_pb2 as pb

SERVICE: Final[str] = pb.DESCRIPTOR.services_by_name["MemoryService"].full_name
# See the rules in memory.proto.
MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
# A client pings so often, also between calls.
KEEPALIVE_SECONDS: Final = 30


def authorities(file: Path) -> bytes:
    """The authorities a client believes.

    Raises:
        StartupError: They cannot be read.
    """
    content = _content(file, "MEMORY_GRPC_CA_FILE")
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise StartupError(
            f"MEMORY_GRPC_CA_FILE {str(file)!r} holds no certificate in PEM: {error}"
        ) from error
    return content


def key_and_certificate(key: Path, certificate: Path) -> tuple[bytes, bytes]:
    """What a server shows who it is with; gRPC itself would only say that it cannot listen.

    Raises:
        StartupError: They cannot be read, or do not belong together.
    """
    pair = _content(key, "MEMORY_SERVE_KEY_FILE"), _content(certificate, "MEMORY_SERVE_CERT_FILE")
    try:
        # With no password given it would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise StartupError(
            "MEMORY_SERVE_CERT_FILE and MEMORY_SERVE_KEY_FILE must be a certificate and its unencrypted key, "
            f"in PEM: {error}"
        ) from error
    return pair


def _content(file: Path, setting: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {setting} {str(file)!r}: {error.strerror}") from error
