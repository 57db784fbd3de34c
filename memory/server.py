"""Any memory, served over gRPC."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc import StatusCode, aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import SecretStr

from core.errors import StartupError
from core.memory import Memory
from core.settings import LOOPBACK, MemorySettings
from memory.grpc_transport import KEEPALIVE_SECONDS, MAX_MESSAGE_BYTES, SERVICE, key_and_certificate
from memory.proto.memory_pb2_grpc import add_MemoryServiceServicer_to_server
from memory.servicer import MemoryServicer

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

MAX_CONCURRENT_CALLS: Final = 1_000
# How long calls in progress may take to end when the server stops.
GRACE_SECONDS: Final = 5.0

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two servers on a port would share its calls, and neither would say so.
    ("grpc.so_reuseport", 0),
    # Who pings twice as often as clients of ours do is turned away.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 1_000 // 2),
)


@asynccontextmanager
async def served_memory(
    memory: Memory, settings: MemorySettings, *, grace_seconds: float = GRACE_SECONDS
) -> AsyncIterator[str]:
    """Serve the memory, with the gRPC health service, until the context closes.

    At the end the health service says so first, then calls in progress may end.

    Args:
        memory: Who answers; its owner closes it.
        settings: Where to listen, the certificate and the token.
        grace_seconds: How long calls in progress may take to end.

    Yields:
        ``host:port``, for ``MEMORY_GRPC_TARGET``.

    Raises:
        StartupError: The port or the certificate cannot be used, or others can reach the port and there is
            no token.
    """
    interceptors = [BearerToken(settings.grpc_token)] if settings.grpc_token else []
    server = aio.server(
        interceptors=interceptors, options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS
    )
    add_MemoryServiceServicer_to_server(MemoryServicer(memory), server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    address = _listen(server, settings)
    await server.start()
    await healthy.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield address
    finally:
        await healthy.enter_graceful_shutdown()
        await server.stop(grace_seconds)


class BearerToken(aio.ServerInterceptor):
    """Lets through who has the token; whether the service is well, anybody may ask.

    Args:
        token: What ``authorization: Bearer`` must bring.
    """

    def __init__(self, token: SecretStr) -> None:
        self._expected = f"Bearer {token.get_secret_value()}".encode()

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Refuse a call before its request is read."""
        if not handler_call_details.method.startswith(f"/{SERVICE}/") or self._knows(handler_call_details):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)

    def _knows(self, call: grpc.HandlerCallDetails) -> bool:
        given = [value for key, value in call.invocation_metadata if key == "authorization"]
        return any(hmac.compare_digest(_bytes(value), self._expected) for value in given)


async def _refuse(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:  # noqa: ARG001 - gRPC's form
    await context.abort(
        StatusCode.UNAUTHENTICATED, "send the metadata authorization: Bearer MEMORY_GRPC_TOKEN"
    )


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _listen(server: aio.Server, settings: MemorySettings) -> str:
    if settings.grpc_token is None and settings.serve_host not in LOOPBACK:
        raise StartupError(
            f"MEMORY_SERVE_HOST={settings.serve_host} needs MEMORY_GRPC_TOKEN: without it whoever reaches "
            "the port reads and erases what is remembered of every contact"
        )
    host = f"[{settings.serve_host}]" if ":" in settings.serve_host else settings.serve_host
    credentials = _credentials(settings)
    address = f"{host}:{settings.serve_port}"
    try:
        port = (
            server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        )
    except RuntimeError as error:
        raise StartupError(
            f"cannot serve memory on {address}: {error}; stop what listens there, or set "
            "MEMORY_SERVE_HOST and MEMORY_SERVE_PORT"
        ) from error
    return f"{host}:{port}"


def _credentials(settings: MemorySettings) -> grpc.ServerCredentials | None:
    if settings.serve_cert_file is None and settings.serve_key_file is None:
        return None
    if settings.serve_cert_file is None or settings.serve_key_file is None:
        raise StartupError("set both MEMORY_SERVE_CERT_FILE and MEMORY_SERVE_KEY_FILE, or neither")
    pair = key_and_certificate(settings.serve_key_file, settings.serve_cert_file)
    return grpc.ssl_server_credentials([pair])
