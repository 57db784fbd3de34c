"""The memory service's client: :class:`core.memory.Memory` over gRPC."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Final, TypeVar

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
from memory import grpc_conversion as wire
from memory.grpc_calls import FIRST_PAUSE_SECONDS, Calls
from memory.grpc_transport import KEEPALIVE_SECONDS, MAX_MESSAGE_BYTES, SERVICE, authorities
from memory.proto import memory_pb2 as pb
from memory.proto.memory_pb2_grpc import MemoryServiceStub

log = get_logger(__name__)

Request = TypeVar("Request", bound=ProtoMessage)
Response = TypeVar("Response", bound=ProtoMessage)

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A server that vanished without a word is noticed within 40 s, also between calls.
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that is back stays unnoticed for so long.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class RemoteMemory:
    """The port's methods as calls; see :class:`core.memory.Memory`.

    Tenant and contact travel in every request: the server trusts who holds the token for them.

    Args:
        channel: Not owned.
        settings: Time limits, attempts, rest and token.
        first_pause: Seconds before the second attempt.
    """

    def __init__(
        self, channel: aio.Channel, settings: MemorySettings, *, first_pause: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self._stub = MemoryServiceStub(channel)
        self._calls = Calls(channel, SERVICE, settings, first_pause=first_pause)
        self._seconds = settings.grpc_timeout_seconds
        self._forget_seconds = settings.grpc_forget_timeout_seconds
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
        with _asking():
            request = pb.SearchRequest(
                scope=wire.to_scope(scope),
                query=make_storable(query),
                strategy=strategy,
                limit=limit,
                as_of=wire.to_optional_timestamp(as_of),
            )
        pages = await self._pages(self._stub.Search, request)
        with _reading():
            return SearchResult(
                hits=tuple(wire.from_hit(hit) for page in pages for hit in page.hits),
                strategy=pages[0].strategy,
                model=pages[0].model,
                degraded=tuple(pages[0].degraded),
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
        with _asking():
            request = pb.AssembleContextRequest(
                scope=wire.to_scope(scope),
                query=make_storable(query),
                strategy=strategy,
                session_id=session_id,
                token_budget=token_budget,
                as_of=wire.to_optional_timestamp(as_of),
            )
        answer = await self._one(self._stub.AssembleContext, request)
        with _reading():
            return wire.from_context(answer)

    async def route(self, scope: Scope, message: Message) -> StrategyChoice:
        """See :meth:`core.memory.Memory.route`."""
        with _asking():
            request = pb.RouteRequest(scope=wire.to_scope(scope), message=wire.to_message(message))
        answer = await self._one(self._stub.Route, request)
        with _reading():
            return wire.from_routed(answer)

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
        with _asking():
            request = pb.QueryGraphRequest(
                scope=wire.to_scope(scope),
                node=node,
                edge_type=edge_type,
                depth=depth,
                as_of=wire.to_optional_timestamp(as_of),
                believed_at=wire.to_optional_timestamp(believed_at),
            )
        pages = await self._pages(self._stub.QueryGraph, request)
        with _reading():
            return Graph(
                nodes=tuple(wire.from_node(node) for page in pages for node in page.nodes),
                edges=tuple(wire.from_edge(edge) for page in pages for edge in page.edges),
            )

    async def add_messages(self, scope: Scope, messages: Sequence[Message]) -> int:
        """See :meth:`core.memory.Memory.add_messages`."""
        with _asking():
            sent = [wire.to_message(message) for message in messages]
            request = pb.AddMessagesRequest(scope=wire.to_scope(scope), messages=sent)
        return (await self._one(self._stub.AddMessages, request)).added

    async def upsert_facts(self, scope: Scope, facts: Sequence[NewFact]) -> list[FactChange]:
        """See :meth:`core.memory.Memory.upsert_facts`."""
        with _asking():
            sent = [wire.to_new_fact(fact) for fact in facts]
            request = pb.UpsertFactsRequest(scope=wire.to_scope(scope), facts=sent)
        answer = await self._one(self._stub.UpsertFacts, request)
        with _reading():
            return [wire.from_fact_change(change) for change in answer.changes]

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
        with _asking():
            request = pb.ListFactsRequest(
                scope=wire.to_scope(scope),
                subject=subject,
                predicate=predicate,
                valid_at=wire.to_optional_timestamp(valid_at),
                believed_at=wire.to_optional_timestamp(believed_at),
            )
        pages = await self._pages(self._stub.ListFacts, request)
        with _reading():
            return [wire.from_fact(fact) for page in pages for fact in page.facts]

    async def fact_history(self, scope: Scope, *, subject: str = "", predicate: str = "") -> list[Fact]:
        """See :meth:`core.memory.Memory.fact_history`."""
        with _asking():
            request = pb.ListFactHistoryRequest(
                scope=wire.to_scope(scope), subject=subject, predicate=predicate
            )
        pages = await self._pages(self._stub.ListFactHistory, request)
        with _reading():
            return [wire.from_fact(fact) for page in pages for fact in page.facts]

    async def upsert_edges(self, scope: Scope, edges: Sequence[Edge]) -> int:
        """See :meth:`core.memory.Memory.upsert_edges`."""
        with _asking():
            sent = [wire.to_edge(edge) for edge in edges]
            request = pb.UpsertEdgesRequest(scope=wire.to_scope(scope), edges=sent)
        return (await self._one(self._stub.UpsertEdges, request)).changed

    async def recent(self, scope: Scope, *, session_id: str = "", limit: int = 20) -> list[Message]:
        """See :meth:`core.memory.Memory.recent`."""
        with _asking():
            request = pb.ListRecentMessagesRequest(
                scope=wire.to_scope(scope), session_id=session_id, limit=limit
            )
        pages = await self._pages(self._stub.ListRecentMessages, request)
        with _reading():
            return [wire.from_message(message) for page in pages for message in page.messages]

    async def forget(self, scope: Scope, *, session_id: str = "") -> ErasedCounts:
        """See :meth:`core.memory.Memory.forget`."""
        with _asking():
            request = pb.ForgetRequest(scope=wire.to_scope(scope), session_id=session_id)
        answer = await self._one(self._stub.Forget, request, seconds=self._forget_seconds)
        return ErasedCounts(counts=dict(answer.counts))

    async def remember(self, scope: Scope, text: str, *, type: NoteType, agent: str) -> Note:  # noqa: A002
        """See :meth:`core.memory.Memory.remember`."""
        with _asking():
            request = pb.RememberRequest(
                scope=wire.to_scope(scope), text=text, type=wire.to_item_type(type), agent=agent
            )
        answer = await self._one(self._stub.Remember, request)
        with _reading():
            return wire.from_item(answer.item)

    async def recall(self, scope: Scope, query: str, *, agent: str, limit: int = 10) -> list[Hit]:
        """See :meth:`core.memory.Memory.recall`."""
        with _asking():
            request = pb.RecallRequest(
                scope=wire.to_scope(scope), query=make_storable(query), agent=agent, limit=limit
            )
        pages = await self._pages(self._stub.Recall, request)
        with _reading():
            return [wire.from_hit(hit) for page in pages for hit in page.hits]

    async def check(self) -> None:
        """Ask the service's health.

        Raises:
            MemoryUnavailable: It does not serve, or cannot be reached.
        """
        await self._calls.check()

    async def _one(
        self,
        method: aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        seconds: float | None = None,
    ) -> Response:
        _fits(request)

        async def attempt(left: float) -> Response:
            return await method(request, timeout=left, metadata=self._metadata)

        return await self._calls.make(attempt, seconds=seconds or self._seconds)

    async def _pages(
        self, method: aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> list[Response]:
        _fits(request)

        async def attempt(left: float) -> list[Response]:
            return [page async for page in method(request, timeout=left, metadata=self._metadata)]

        return await self._calls.make(attempt, seconds=self._seconds)


@asynccontextmanager
async def remote_memory(settings: MemorySettings) -> AsyncIterator[RemoteMemory]:
    """The client, until the context closes. It waits for nobody: the service may be away.

    Args:
        settings: Where the service is and how it is called; ``grpc_target`` is set.

    Raises:
        StartupError: The file of authorities cannot be read.
    """
    async with _channel(settings) as channel:
        yield RemoteMemory(channel, settings)


def _channel(settings: MemorySettings) -> aio.Channel:
    target = settings.grpc_target or ""
    file = settings.grpc_ca_file
    if not (settings.grpc_tls or file):
        if settings.grpc_token:
            log.warning("memory_token_in_the_clear", target=target, instead="set MEMORY_GRPC_TLS")
        return aio.insecure_channel(target, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(authorities(file) if file else None)
    return aio.secure_channel(target, credentials, options=_OPTIONS)


@contextmanager
def _asking() -> Iterator[None]:
    """Refuse, before anything is sent, what cannot be said.

    Raises:
        MemoryRefused: Instead of the ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        raise MemoryRefused(str(error)) from error


@contextmanager
def _reading() -> Iterator[None]:
    """Say of an answer that means nothing that the memory is of another version.

    Raises:
        MemoryUnavailable: Instead of the ``ValueError``, or of the missing first page.
    """
    try:
        yield
    except (ValueError, IndexError) as error:
        raise MemoryUnavailable(
            f"the memory's answer cannot be read, is it of another version? {error}"
        ) from error


def _fits(request: ProtoMessage) -> None:
    size = request.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        raise MemoryRefused(
            f"this is {size} bytes, of which the memory takes {MAX_MESSAGE_BYTES} at once: send it in parts"
        )
