"""The methods of ``memory.proto`` over any :class:`core.memory.Memory`."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, TypeAlias, cast

from grpc import StatusCode, aio

from core.errors import MemoryRefused, ServiceError
from core.logging import get_logger
from core.memory import Memory, StrategyName
from memory import grpc_conversion as wire
from memory.grpc_transport import ERROR_KEY, to_status
from memory.proto import memory_pb2 as pb
from memory.proto.memory_pb2_grpc import MemoryServiceServicer

log = get_logger(__name__)

# What a field that is not set means: see memory.proto.
STRATEGY: Final = "general"
LIMIT: Final = 10
RECENT: Final = 20
DEPTH: Final = 1

Context: TypeAlias = aio.ServicerContext[Any, Any]


class MemoryServicer(MemoryServiceServicer):
    """Decodes a request, asks the memory, encodes what it says.

    Args:
        memory: Who answers.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def Search(self, request: pb.SearchRequest, context: Context) -> AsyncIterator[pb.SearchResponse]:
        """See the proto."""
        async with Answering(context):
            with asked():
                as_of = wire.from_optional_timestamp(request, "as_of")
            found = await self._memory.search(
                wire.from_scope(request.scope),
                request.query,
                # The memory refuses what is none.
                strategy=cast("StrategyName", request.strategy or STRATEGY),
                limit=request.limit if request.HasField("limit") else LIMIT,
                as_of=as_of,
            )
            first = pb.SearchResponse(strategy=found.strategy, model=found.model, degraded=found.degraded)
            for hits in wire.pages(wire.to_hit(hit) for hit in found.hits):
                first.hits.extend(hits)
                yield first
                first = pb.SearchResponse()
            if not found.hits:
                yield first

    async def QueryGraph(
        self, request: pb.QueryGraphRequest, context: Context
    ) -> AsyncIterator[pb.QueryGraphResponse]:
        """See the proto."""
        async with Answering(context):
            with asked():
                as_of = wire.from_optional_timestamp(request, "as_of")
                believed_at = wire.from_optional_timestamp(request, "believed_at")
            graph = await self._memory.query_graph(
                wire.from_scope(request.scope),
                request.node,
                edge_type=request.edge_type,
                depth=request.depth if request.HasField("depth") else DEPTH,
                as_of=as_of,
                believed_at=believed_at,
            )
            for nodes in wire.pages(wire.to_node(node) for node in graph.nodes):
                yield pb.QueryGraphResponse(nodes=nodes)
            for edges in wire.pages(wire.to_edge(edge) for edge in graph.edges):
                yield pb.QueryGraphResponse(edges=edges)

    async def AddMessages(self, request: pb.AddMessagesRequest, context: Context) -> pb.AddMessagesResponse:
        """See the proto."""
        async with Answering(context):
            with asked():
                messages = [wire.from_message(message) for message in request.messages]
            added = await self._memory.add_messages(wire.from_scope(request.scope), messages)
            return pb.AddMessagesResponse(added=added)

    async def ListRecentMessages(
        self, request: pb.ListRecentMessagesRequest, context: Context
    ) -> AsyncIterator[pb.ListRecentMessagesResponse]:
        """See the proto."""
        async with Answering(context):
            recent = await self._memory.recent(
                wire.from_scope(request.scope),
                session_id=request.session_id,
                limit=request.limit if request.HasField("limit") else RECENT,
            )
            for messages in wire.pages(wire.to_message(message) for message in recent):
                yield pb.ListRecentMessagesResponse(messages=messages)

    async def UpsertFacts(self, request: pb.UpsertFactsRequest, context: Context) -> pb.UpsertFactsResponse:
        """See the proto."""
        async with Answering(context):
            with asked():
                facts = [wire.from_new_fact(fact) for fact in request.facts]
            changes = await self._memory.upsert_facts(wire.from_scope(request.scope), facts)
            return pb.UpsertFactsResponse(changes=[wire.to_fact_change(change) for change in changes])

    async def ListFacts(
        self, request: pb.ListFactsRequest, context: Context
    ) -> AsyncIterator[pb.ListFactsResponse]:
        """See the proto."""
        async with Answering(context):
            with asked():
                valid_at = wire.from_optional_timestamp(request, "valid_at")
                believed_at = wire.from_optional_timestamp(request, "believed_at")
            found = await self._memory.list_facts(
                wire.from_scope(request.scope),
                subject=request.subject,
                predicate=request.predicate,
                valid_at=valid_at,
                believed_at=believed_at,
            )
            for facts in wire.pages(wire.to_fact(fact) for fact in found):
                yield pb.ListFactsResponse(facts=facts)

    async def ListFactHistory(
        self, request: pb.ListFactHistoryRequest, context: Context
    ) -> AsyncIterator[pb.ListFactHistoryResponse]:
        """See the proto."""
        async with Answering(context):
            found = await self._memory.fact_history(
                wire.from_scope(request.scope), subject=request.subject, predicate=request.predicate
            )
            for facts in wire.pages(wire.to_fact(fact) for fact in found):
                yield pb.ListFactHistoryResponse(facts=facts)

    async def UpsertEdges(self, request: pb.UpsertEdgesRequest, context: Context) -> pb.UpsertEdgesResponse:
        """See the proto."""
        async with Answering(context):
            with asked():
                edges = [wire.from_edge(edge) for edge in request.edges]
            changed = await self._memory.upsert_edges(wire.from_scope(request.scope), edges)
            return pb.UpsertEdgesResponse(changed=changed)

    async def Remember(self, request: pb.RememberRequest, context: Context) -> pb.RememberResponse:
        """See the proto."""
        async with Answering(context):
            with asked():
                kind = wire.from_item_type(request.type)
            item = await self._memory.remember(
                wire.from_scope(request.scope), request.text, type=kind, agent=request.agent
            )
            return pb.RememberResponse(item=wire.to_item(item))

    async def Recall(self, request: pb.RecallRequest, context: Context) -> AsyncIterator[pb.RecallResponse]:
        """See the proto."""
        async with Answering(context):
            found = await self._memory.recall(
                wire.from_scope(request.scope),
                request.query,
                agent=request.agent,
                limit=request.limit if request.HasField("limit") else LIMIT,
            )
            for hits in wire.pages(wire.to_hit(hit) for hit in found):
                yield pb.RecallResponse(hits=hits)

    async def Route(self, request: pb.RouteRequest, context: Context) -> pb.RouteResponse:
        """See the proto."""
        async with Answering(context):
            with asked():
                message = wire.from_message(request.message)
            routed = await self._memory.route(wire.from_scope(request.scope), message)
            return pb.RouteResponse(
                intent=routed.strategy, confidence=routed.confidence, degraded=routed.degraded
            )

    async def AssembleContext(
        self, request: pb.AssembleContextRequest, context: Context
    ) -> pb.AssembleContextResponse:
        """See the proto."""
        async with Answering(context):
            with asked():
                as_of = wire.from_optional_timestamp(request, "as_of")
            assembled = await self._memory.assemble_context(
                wire.from_scope(request.scope),
                request.query,
                # The memory refuses what is none.
                strategy=cast("StrategyName", request.strategy or STRATEGY),
                session_id=request.session_id,
                token_budget=request.token_budget if request.HasField("token_budget") else None,
                as_of=as_of,
            )
            return wire.to_context(assembled)

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:
        """See the proto."""
        async with Answering(context):
            erased = await self._memory.forget(wire.from_scope(request.scope), session_id=request.session_id)
            return pb.ForgetResponse(counts=erased.counts)


@contextmanager
def asked() -> Iterator[None]:
    """Refuse what a request says in a form that means nothing.

    Raises:
        MemoryRefused: Instead of the ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        raise MemoryRefused(str(error)) from error


class Answering:
    """Ends a call with the status of what is raised within; what is not foreseen is logged, not disclosed."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ServiceError):
            status, message, packed = to_status(error)
            await self._context.abort(status, message, ((ERROR_KEY, packed),))
        elif isinstance(error, Exception):
            log.error("memory_call_failed", exc_info=error)
            await self._context.abort(
                StatusCode.INTERNAL, "something failed that was not foreseen; the memory's log has it"
            )
