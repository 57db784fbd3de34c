"""The gRPC server, which serves any :class:`core.memory.Memory`."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import grpc
from grpc import StatusCode, aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import SecretStr

from core.errors import MemoryRefused, ServiceError, StartupError
from core.logging import get_logger
from core.memory import Memory, StrategyName
from core.settings import LOOPBACK, MemorySettings
from memory import grpc_conversion as conversion
from memory.grpc_transport import (
    ERROR_KEY,
    KEEPALIVE_SECONDS,
    MAX_MESSAGE_BYTES,
    SERVICE,
    read_key_and_certificate,
    to_status,
)
from memory.proto import memory_pb2 as pb
from memory.proto.memory_pb2_grpc import MemoryServiceServicer, add_MemoryServiceServicer_to_server

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

log = get_logger(__name__)

Context: TypeAlias = aio.ServicerContext[Any, Any]

# Defaults of fields that are not set, promised in memory.proto.
DEFAULT_STRATEGY: Final = "general"
DEFAULT_LIMIT: Final = 10
DEFAULT_NOTES: Final = 100
DEFAULT_RECENT: Final = 20
DEFAULT_DEPTH: Final = 1

MAX_CONCURRENT_CALLS: Final = 1_000
# How long calls in progress may take when the server stops.
GRACE_SECONDS: Final = 5.0

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # With port reuse, two servers on one port would silently share its calls.
    ("grpc.so_reuseport", 0),
    # Clients that ping more than twice as often as ours are disconnected.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 1_000 // 2),
)


@asynccontextmanager
async def serve_memory(
    memory: Memory, settings: MemorySettings, *, grace_seconds: float = GRACE_SECONDS
) -> AsyncIterator[str]:
    """Serve a memory, together with the gRPC health service, until the context closes.

    On closing, the health service reports the shutdown first, then calls in progress may finish.

    Args:
        memory: The memory; its owner closes it.
        settings: The address to listen on, the certificate and the token.
        grace_seconds: How long calls in progress may take to finish.

    Yields:
        ``host:port``, for ``MEMORY_GRPC_TARGET``.

    Raises:
        StartupError: The port or the certificate cannot be used, or the port is reachable by others although
            there is no token.
    """
    interceptors = [BearerTokenInterceptor(settings.grpc_token)] if settings.grpc_token else []
    server = aio.server(
        interceptors=interceptors, options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS
    )
    add_MemoryServiceServicer_to_server(MemoryServicer(memory), server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    address = _listen(server, settings)
    await server.start()
    await health_servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield address
    finally:
        await health_servicer.enter_graceful_shutdown()
        await server.stop(grace_seconds)


class BearerTokenInterceptor(aio.ServerInterceptor):
    """Requires the bearer token for all calls except health checks.

    Args:
        token: The token that ``authorization: Bearer`` must carry.
    """

    def __init__(self, token: SecretStr) -> None:
        self._expected = f"Bearer {token.get_secret_value()}".encode()

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Refuse a call before its request is read."""
        if not handler_call_details.method.startswith(f"/{SERVICE}/") or self._has_token(
            handler_call_details
        ):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)

    def _has_token(self, call: grpc.HandlerCallDetails) -> bool:
        values = [value for key, value in call.invocation_metadata if key == "authorization"]
        return any(hmac.compare_digest(_to_bytes(value), self._expected) for value in values)


async def _refuse(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:  # noqa: ARG001 - gRPC's signature
    await context.abort(
        StatusCode.UNAUTHENTICATED, "send the metadata authorization: Bearer MEMORY_GRPC_TOKEN"
    )


def _to_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _listen(server: aio.Server, settings: MemorySettings) -> str:
    if settings.grpc_token is None and settings.serve_host not in LOOPBACK:
        raise StartupError(
            f"MEMORY_SERVE_HOST={settings.serve_host} needs MEMORY_GRPC_TOKEN: without it, anyone who "
            "reaches the port can read and erase the memory of every contact"
        )
    host = f"[{settings.serve_host}]" if ":" in settings.serve_host else settings.serve_host
    credentials = _load_credentials(settings)
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


def _load_credentials(settings: MemorySettings) -> grpc.ServerCredentials | None:
    if settings.serve_cert_file is None and settings.serve_key_file is None:
        return None
    if settings.serve_cert_file is None or settings.serve_key_file is None:
        raise StartupError("set both MEMORY_SERVE_CERT_FILE and MEMORY_SERVE_KEY_FILE, or neither")
    pair = read_key_and_certificate(settings.serve_key_file, settings.serve_cert_file)
    return grpc.ssl_server_credentials([pair])


class MemoryServicer(MemoryServiceServicer):
    """Converts requests, calls the memory, and converts its results; see memory.proto for the methods."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def Search(self, request: pb.SearchRequest, context: Context) -> AsyncIterator[pb.SearchResponse]:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                as_of = conversion.from_optional_timestamp(request, "as_of")
            result = await self._memory.search(
                conversion.from_scope(request.scope),
                request.query,
                # The memory refuses unknown names.
                strategy=cast("StrategyName", request.strategy or DEFAULT_STRATEGY),
                limit=request.limit if request.HasField("limit") else DEFAULT_LIMIT,
                as_of=as_of,
            )
            first = pb.SearchResponse(
                strategy=result.strategy,
                model=result.model,
                degraded=result.degraded,
                reasons=result.reasons,
            )
            for hits in conversion.paginate(conversion.to_hit(hit) for hit in result.hits):
                first.hits.extend(hits)
                yield first
                first = pb.SearchResponse()
            if not result.hits:
                yield first

    async def QueryGraph(
        self, request: pb.QueryGraphRequest, context: Context
    ) -> AsyncIterator[pb.QueryGraphResponse]:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                as_of = conversion.from_optional_timestamp(request, "as_of")
                believed_at = conversion.from_optional_timestamp(request, "believed_at")
            graph = await self._memory.query_graph(
                conversion.from_scope(request.scope),
                request.node,
                edge_type=request.edge_type,
                depth=request.depth if request.HasField("depth") else DEFAULT_DEPTH,
                as_of=as_of,
                believed_at=believed_at,
            )
            for nodes in conversion.paginate(conversion.to_node(node) for node in graph.nodes):
                yield pb.QueryGraphResponse(nodes=nodes)
            for edges in conversion.paginate(conversion.to_edge(edge) for edge in graph.edges):
                yield pb.QueryGraphResponse(edges=edges)

    async def AddMessages(self, request: pb.AddMessagesRequest, context: Context) -> pb.AddMessagesResponse:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                messages = [conversion.from_message(message) for message in request.messages]
            added = await self._memory.add_messages(conversion.from_scope(request.scope), messages)
            return pb.AddMessagesResponse(added=added)

    async def ListRecentMessages(
        self, request: pb.ListRecentMessagesRequest, context: Context
    ) -> AsyncIterator[pb.ListRecentMessagesResponse]:
        async with _ErrorsAsStatuses(context):
            recent = await self._memory.recent(
                conversion.from_scope(request.scope),
                session_id=request.session_id,
                limit=request.limit if request.HasField("limit") else DEFAULT_RECENT,
            )
            for messages in conversion.paginate(conversion.to_message(message) for message in recent):
                yield pb.ListRecentMessagesResponse(messages=messages)

    async def UpsertFacts(self, request: pb.UpsertFactsRequest, context: Context) -> pb.UpsertFactsResponse:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                facts = [conversion.from_new_fact(fact) for fact in request.facts]
            changes = await self._memory.upsert_facts(conversion.from_scope(request.scope), facts)
            return pb.UpsertFactsResponse(changes=[conversion.to_fact_change(change) for change in changes])

    async def ListFacts(
        self, request: pb.ListFactsRequest, context: Context
    ) -> AsyncIterator[pb.ListFactsResponse]:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                valid_at = conversion.from_optional_timestamp(request, "valid_at")
                believed_at = conversion.from_optional_timestamp(request, "believed_at")
            facts = await self._memory.list_facts(
                conversion.from_scope(request.scope),
                subject=request.subject,
                predicate=request.predicate,
                valid_at=valid_at,
                believed_at=believed_at,
            )
            for page in conversion.paginate(conversion.to_fact(fact) for fact in facts):
                yield pb.ListFactsResponse(facts=page)

    async def ListFactHistory(
        self, request: pb.ListFactHistoryRequest, context: Context
    ) -> AsyncIterator[pb.ListFactHistoryResponse]:
        async with _ErrorsAsStatuses(context):
            facts = await self._memory.fact_history(
                conversion.from_scope(request.scope), subject=request.subject, predicate=request.predicate
            )
            for page in conversion.paginate(conversion.to_fact(fact) for fact in facts):
                yield pb.ListFactHistoryResponse(facts=page)

    async def UpsertEdges(self, request: pb.UpsertEdgesRequest, context: Context) -> pb.UpsertEdgesResponse:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                edges = [conversion.from_edge(edge) for edge in request.edges]
            changed = await self._memory.upsert_edges(conversion.from_scope(request.scope), edges)
            return pb.UpsertEdgesResponse(changed=changed)

    async def Remember(self, request: pb.RememberRequest, context: Context) -> pb.RememberResponse:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                kind = conversion.from_note_type(request.type)
            note = await self._memory.remember(
                conversion.from_scope(request.scope),
                request.text,
                type=kind,
                agent=request.agent,
                key=request.key,
            )
            return pb.RememberResponse(note=conversion.to_note(note))

    async def GetNote(self, request: pb.GetNoteRequest, context: Context) -> pb.GetNoteResponse:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                kind = conversion.from_note_type(request.type)
            note = await self._memory.get_note(
                conversion.from_scope(request.scope), request.key, type=kind, agent=request.agent
            )
            return pb.GetNoteResponse(note=conversion.to_note(note) if note else None)

    async def DeleteNote(self, request: pb.DeleteNoteRequest, context: Context) -> pb.DeleteNoteResponse:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                kind = conversion.from_note_type(request.type)
            deleted = await self._memory.delete_note(
                conversion.from_scope(request.scope), request.key, type=kind, agent=request.agent
            )
            return pb.DeleteNoteResponse(deleted=deleted)

    async def Recall(self, request: pb.RecallRequest, context: Context) -> AsyncIterator[pb.RecallResponse]:
        async with _ErrorsAsStatuses(context):
            hits = await self._memory.recall(
                conversion.from_scope(request.scope),
                request.query,
                agent=request.agent,
                limit=request.limit if request.HasField("limit") else DEFAULT_LIMIT,
            )
            for page in conversion.paginate(conversion.to_hit(hit) for hit in hits):
                yield pb.RecallResponse(hits=page)

    async def ListNotes(
        self, request: pb.ListNotesRequest, context: Context
    ) -> AsyncIterator[pb.ListNotesResponse]:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                kind = conversion.from_note_type(request.type) if request.type else None
            notes = await self._memory.list_notes(
                conversion.from_scope(request.scope),
                type=kind,
                agent=request.agent,
                limit=request.limit if request.HasField("limit") else DEFAULT_NOTES,
            )
            for page in conversion.paginate(conversion.to_note(note) for note in notes):
                yield pb.ListNotesResponse(notes=page)

    async def Route(self, request: pb.RouteRequest, context: Context) -> pb.RouteResponse:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                message = conversion.from_message(request.message)
            choice = await self._memory.route(conversion.from_scope(request.scope), message)
            return pb.RouteResponse(
                intent=choice.strategy, confidence=choice.confidence, degraded=choice.degraded
            )

    async def AssembleContext(
        self, request: pb.AssembleContextRequest, context: Context
    ) -> pb.AssembleContextResponse:
        async with _ErrorsAsStatuses(context):
            with _refuse_invalid():
                as_of = conversion.from_optional_timestamp(request, "as_of")
            assembled = await self._memory.assemble_context(
                conversion.from_scope(request.scope),
                request.query,
                # The memory refuses unknown names.
                strategy=cast("StrategyName", request.strategy or DEFAULT_STRATEGY),
                session_id=request.session_id,
                token_budget=request.token_budget if request.HasField("token_budget") else None,
                as_of=as_of,
            )
            return conversion.to_context(assembled)

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:
        async with _ErrorsAsStatuses(context):
            erased = await self._memory.forget(
                conversion.from_scope(request.scope), session_id=request.session_id
            )
            return pb.ForgetResponse(counts=erased.counts)


@contextmanager
def _refuse_invalid() -> Iterator[None]:
    """Refuse a request whose fields cannot be converted.

    Raises:
        MemoryRefused: Instead of the ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        raise MemoryRefused(str(error)) from error


class _ErrorsAsStatuses:
    """Ends a call with the status of the error raised within; unforeseen errors are logged, not disclosed."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ServiceError):
            status, message, document = to_status(error)
            await self._context.abort(status, message, ((ERROR_KEY, document),))
        elif isinstance(error, Exception):
            log.error("memory_call_failed", exc_info=error)
            await self._context.abort(StatusCode.INTERNAL, "the memory failed unexpectedly; see its log")
