"""The gRPC client: :class:`core.memory.Memory` over a connection to a memory service."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message as ProtoMessage
from grpc import aio

from core.errors import MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import (
    AssembledContext,
    Edge,
    ErasedCounts,
    Fact,
    FactChange,
    Graph,
    Hit,
    Message,
    NewFact,
    Note,
    NoteType,
    Scope,
    SearchResult,
    StrategyChoice,
    StrategyName,
)
from core.settings import MemorySettings
from core.texts import make_storable
from memory import grpc_conversion as conversion
from memory.grpc_calls import FIRST_PAUSE_SECONDS, Calls
from memory.grpc_transport import KEEPALIVE_SECONDS, MAX_MESSAGE_BYTES, SERVICE, read_authorities
from memory.proto import memory_pb2 as pb
from memory.proto.memory_pb2_grpc import MemoryServiceStub

log = get_logger(__name__)

Request = TypeVar("Request", bound=ProtoMessage)
Response = TypeVar("Response", bound=ProtoMessage)

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A server that vanished without closing the connection is noticed within 40 s, also between calls.
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # How long a server that is back may go unnoticed.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


OnUpserted: TypeAlias = Callable[[Scope, Sequence[FactChange]], Awaitable[None]]


class RemoteMemory:
    """A memory whose methods are gRPC calls.

    Every request carries the tenant and the contact; the server trusts holders of the token to set them.

    Args:
        channel: The channel; its owner closes it.
        settings: Time limits, attempts, the circuit breaker's rest, and the token.
        first_pause: Seconds before the second attempt.

    Attributes:
        on_upserted: Called with what became of facts, before their caller is answered.
    """

    def __init__(
        self, channel: aio.Channel, settings: MemorySettings, *, first_pause: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self._stub = MemoryServiceStub(channel)
        self._calls = Calls(channel, SERVICE, settings, first_pause=first_pause)
        self._seconds = settings.grpc_timeout_seconds
        self._forget_seconds = settings.grpc_forget_timeout_seconds
        self.on_upserted: OnUpserted | None = None
        token = settings.grpc_token
        self._metadata = (("authorization", f"Bearer {token.get_secret_value()}"),) if token else ()

    async def search(
        self,
        scope: Scope,
        query: str,
        *,
        strategy: StrategyName = "general",
        limit: int = 10,
        as_of: datetime | None = None,
    ) -> SearchResult:
        """See :meth:`core.memory.Memory.search`."""
        with _refuse_invalid():
            request = pb.SearchRequest(
                scope=conversion.to_scope(scope),
                query=make_storable(query),
                strategy=strategy,
                limit=limit,
                as_of=conversion.to_optional_timestamp(as_of),
            )
        pages = await self._call_stream(self._stub.Search, request)
        with _check_response():
            return SearchResult(
                hits=tuple(conversion.from_hit(hit) for page in pages for hit in page.hits),
                strategy=pages[0].strategy,
                model=pages[0].model,
                degraded=tuple(pages[0].degraded),
                reasons=tuple(pages[0].reasons),
            )

    async def assemble_context(
        self,
        scope: Scope,
        query: str,
        *,
        strategy: StrategyName = "general",
        session_id: str = "",
        token_budget: int | None = None,
        as_of: datetime | None = None,
    ) -> AssembledContext:
        """See :meth:`core.memory.Memory.assemble_context`."""
        with _refuse_invalid():
            request = pb.AssembleContextRequest(
                scope=conversion.to_scope(scope),
                query=make_storable(query),
                strategy=strategy,
                session_id=session_id,
                token_budget=token_budget,
                as_of=conversion.to_optional_timestamp(as_of),
            )
        response = await self._call(self._stub.AssembleContext, request)
        with _check_response():
            return conversion.from_context(response)

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:
        """See :meth:`core.memory.Memory.route`."""
        with _refuse_invalid():
            request = pb.RouteRequest(
                scope=conversion.to_scope(scope), message=conversion.to_message(message)
            )
        response = await self._call(self._stub.Route, request)
        with _check_response():
            return conversion.from_choice(response)

    async def query_graph(
        self,
        scope: Scope,
        node: str,
        *,
        edge_type: str = "",
        depth: int = 1,
        as_of: datetime | None = None,
        believed_at: datetime | None = None,
    ) -> Graph:
        """See :meth:`core.memory.Memory.query_graph`."""
        with _refuse_invalid():
            request = pb.QueryGraphRequest(
                scope=conversion.to_scope(scope),
                node=node,
                edge_type=edge_type,
                depth=depth,
                as_of=conversion.to_optional_timestamp(as_of),
                believed_at=conversion.to_optional_timestamp(believed_at),
            )
        pages = await self._call_stream(self._stub.QueryGraph, request)
        with _check_response():
            return Graph(
                nodes=tuple(conversion.from_node(node) for page in pages for node in page.nodes),
                edges=tuple(conversion.from_edge(edge) for page in pages for edge in page.edges),
            )

    async def add_messages(self, scope: Scope, messages: Sequence[Message]) -> int:
        """See :meth:`core.memory.Memory.add_messages`."""
        with _refuse_invalid():
            converted = [conversion.to_message(message) for message in messages]
            request = pb.AddMessagesRequest(scope=conversion.to_scope(scope), messages=converted)
        return (await self._call(self._stub.AddMessages, request)).added

    async def upsert_facts(self, scope: Scope, facts: Sequence[NewFact]) -> list[FactChange]:
        """See :meth:`core.memory.Memory.upsert_facts`."""
        with _refuse_invalid():
            converted = [conversion.to_new_fact(fact) for fact in facts]
            request = pb.UpsertFactsRequest(scope=conversion.to_scope(scope), facts=converted)
        response = await self._call(self._stub.UpsertFacts, request)
        with _check_response():
            changes = [conversion.from_fact_change(change) for change in response.changes]
        if self.on_upserted:
            await self.on_upserted(scope, changes)
        return changes

    async def list_facts(
        self,
        scope: Scope,
        *,
        subject: str = "",
        predicate: str = "",
        valid_at: datetime | None = None,
        believed_at: datetime | None = None,
    ) -> list[Fact]:
        """See :meth:`core.memory.Memory.list_facts`."""
        with _refuse_invalid():
            request = pb.ListFactsRequest(
                scope=conversion.to_scope(scope),
                subject=subject,
                predicate=predicate,
                valid_at=conversion.to_optional_timestamp(valid_at),
                believed_at=conversion.to_optional_timestamp(believed_at),
            )
        pages = await self._call_stream(self._stub.ListFacts, request)
        with _check_response():
            return [conversion.from_fact(fact) for page in pages for fact in page.facts]

    async def fact_history(self, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:
        """See :meth:`core.memory.Memory.fact_history`."""
        with _refuse_invalid():
            request = pb.ListFactHistoryRequest(
                scope=conversion.to_scope(scope), subject=subject, predicate=predicate
            )
        pages = await self._call_stream(self._stub.ListFactHistory, request)
        with _check_response():
            return [conversion.from_fact(fact) for page in pages for fact in page.facts]

    async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:
        """See :meth:`core.memory.Memory.upsert_edges`."""
        with _refuse_invalid():
            converted = [conversion.to_edge(edge) for edge in edges]
            request = pb.UpsertEdgesRequest(scope=conversion.to_scope(scope), edges=converted)
        return (await self._call(self._stub.UpsertEdges, request)).changed

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:
        """See :meth:`core.memory.Memory.recent`."""
        with _refuse_invalid():
            request = pb.ListRecentMessagesRequest(
                scope=conversion.to_scope(scope), session_id=session_id, limit=limit
            )
        pages = await self._call_stream(self._stub.ListRecentMessages, request)
        with _check_response():
            return [conversion.from_message(message) for page in pages for message in page.messages]

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:
        """See :meth:`core.memory.Memory.forget`."""
        with _refuse_invalid():
            request = pb.ForgetRequest(scope=conversion.to_scope(scope), session_id=session_id)
        response = await self._call(self._stub.Forget, request, seconds=self._forget_seconds)
        return ErasedCounts(counts=dict(response.counts))

    async def remember(
        self,
        scope: Scope,
        text: str,
        *,
        type: NoteType,  # noqa: A002
        agent: str,
        key: str = "",
    ) -> Note:
        """See :meth:`core.memory.Memory.remember`."""
        with _refuse_invalid():
            request = pb.RememberRequest(
                scope=conversion.to_scope(scope),
                text=text,
                type=conversion.to_note_type(type),
                agent=agent,
                key=key,
            )
        response = await self._call(self._stub.Remember, request)
        with _check_response():
            return conversion.from_note(response.note)

    async def get_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> Note | None:  # noqa: A002
        """See :meth:`core.memory.Memory.get_note`."""
        with _refuse_invalid():
            request = pb.GetNoteRequest(
                scope=conversion.to_scope(scope), key=key, type=conversion.to_note_type(type), agent=agent
            )
        response = await self._call(self._stub.GetNote, request)
        with _check_response():
            return conversion.from_note(response.note) if response.HasField("note") else None

    async def delete_note(self, scope: Scope, key: str, *, type: NoteType, agent: str) -> bool:  # noqa: A002
        """See :meth:`core.memory.Memory.delete_note`."""
        with _refuse_invalid():
            request = pb.DeleteNoteRequest(
                scope=conversion.to_scope(scope), key=key, type=conversion.to_note_type(type), agent=agent
            )
        return (await self._call(self._stub.DeleteNote, request)).deleted

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:
        """See :meth:`core.memory.Memory.recall`."""
        with _refuse_invalid():
            request = pb.RecallRequest(
                scope=conversion.to_scope(scope), query=make_storable(query), agent=agent, limit=limit
            )
        pages = await self._call_stream(self._stub.Recall, request)
        with _check_response():
            return [conversion.from_hit(hit) for page in pages for hit in page.hits]

    async def list_notes(
        self,
        scope: Scope,
        *,
        type: NoteType | None = None,  # noqa: A002
        agent: str = "",
        limit: int = 100,
    ) -> list[Note]:
        """See :meth:`core.memory.Memory.list_notes`."""
        with _refuse_invalid():
            request = pb.ListNotesRequest(
                scope=conversion.to_scope(scope),
                type=conversion.to_note_type(type) if type else pb.NOTE_TYPE_UNSPECIFIED,
                agent=agent,
                limit=limit,
            )
        pages = await self._call_stream(self._stub.ListNotes, request)
        with _check_response():
            return [conversion.from_note(note) for page in pages for note in page.notes]

    async def check_health(self) -> None:
        """Check the service's health.

        Raises:
            MemoryUnavailable: The service is not healthy, or cannot be reached.
        """
        await self._calls.check_health()

    async def _call(
        self,
        method: aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        seconds: float | None = None,
    ) -> Response:
        _check_size(request)

        async def attempt(timeout: float) -> Response:
            return await method(request, timeout=timeout, metadata=self._metadata)

        return await self._calls.make(attempt, seconds=seconds or self._seconds)

    async def _call_stream(
        self, method: aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> list[Response]:
        _check_size(request)

        async def attempt(timeout: float) -> list[Response]:
            return [page async for page in method(request, timeout=timeout, metadata=self._metadata)]

        return await self._calls.make(attempt, seconds=self._seconds)


@asynccontextmanager
async def connect_memory(settings: MemorySettings) -> AsyncIterator[RemoteMemory]:
    """Open a client until the context closes. The service need not be reachable yet.

    Args:
        settings: The address of the service (``grpc_target`` is set), and how it is called.

    Raises:
        StartupError: The file of certificate authorities cannot be read.
    """
    async with _open_channel(settings) as channel:
        yield RemoteMemory(channel, settings)


def _open_channel(settings: MemorySettings) -> aio.Channel:
    target = settings.grpc_target or ""
    file = settings.grpc_ca_file
    if not (settings.grpc_tls or file):
        if settings.grpc_token:
            log.warning("memory_token_sent_unencrypted", target=target, hint="set MEMORY_GRPC_TLS")
        return aio.insecure_channel(target, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(read_authorities(file) if file else None)
    return aio.secure_channel(target, credentials, options=_OPTIONS)


@contextmanager
def _refuse_invalid() -> Iterator[None]:
    """Refuse a request that cannot be converted, before anything is sent.

    Raises:
        MemoryRefused: Instead of the ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        raise MemoryRefused(str(error)) from error


@contextmanager
def _check_response() -> Iterator[None]:
    """Report a response that cannot be converted: the server is probably of another version.

    Raises:
        MemoryUnavailable: Instead of the ``ValueError``, or the ``IndexError`` of a missing first page.
    """
    try:
        yield
    except (ValueError, IndexError) as error:
        raise MemoryUnavailable(
            f"the memory's response cannot be read; is the server of another version? {error}"
        ) from error


def _check_size(request: ProtoMessage) -> None:
    size = request.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        raise MemoryRefused(
            f"the request has {size} bytes, and at most {MAX_MESSAGE_BYTES} are allowed; send it in parts"
        )
