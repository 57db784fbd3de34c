"""The port's values as messages of ``memory.proto``, and back.

Everything here raises ``ValueError`` for what cannot be said in the other form. Who calls knows whose fault
that is: a caller's, who is refused, or a memory's of another version.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, TypeVar, cast, get_args

from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp

from core.memory import (
    AssembledContext,
    ContextSection,
    Edge,
    Fact,
    FactChange,
    Hit,
    Message,
    NewFact,
    Node,
    Note,
    NoteType,
    OmittedItem,
    RetrieverRank,
    Role,
    Scope,
    StrategyChoice,
    StrategyName,
)
from core.memory.values import HitKind
from core.texts import make_storable
from memory.proto import memory_pb2 as pb

FactOutcome: TypeAlias = Literal["added", "repeated", "changed", "corrected"]
Entry = TypeVar("Entry", bound=ProtoMessage)
Name = TypeVar("Name", bound=str)
Number = TypeVar("Number", bound=int)

# Small enough that a page never holds up others on the connection, large enough that most lists are one.
PAGE_BYTES: Final = 256 * 1024


def _numbers(names: Iterable[Name], enum: Mapping[str, Number], prefix: str) -> dict[Name, Number]:
    return {name: enum[f"{prefix}_{name.upper()}"] for name in names}


_ROLES: Final = _numbers(cast("tuple[Role, ...]", get_args(Role)), dict(pb.Role.items()), "ROLE")
_KINDS: Final = _numbers(cast("tuple[HitKind, ...]", get_args(HitKind)), dict(pb.HitKind.items()), "HIT_KIND")
_OUTCOMES: Final = _numbers(
    cast("tuple[FactOutcome, ...]", get_args(FactOutcome)), dict(pb.FactOutcome.items()), "FACT_OUTCOME"
)
_TYPES: Final = _numbers(
    cast("tuple[NoteType, ...]", get_args(NoteType)), dict(pb.ItemType.items()), "ITEM_TYPE"
)


def _number(numbers: Mapping[Name, Number], name: Name, what: str) -> Number:
    if name not in numbers:
        raise ValueError(f"{what} {name!r} is not known; there are {', '.join(numbers)}")
    return numbers[name]


def _name(numbers: Mapping[Name, Number], number: Number, what: str) -> Name:
    for name, known in numbers.items():
        if known == number:
            return name
    raise ValueError(f"{what} {number} is not known; there are {', '.join(numbers)}")


def pages(items: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The items in their order, in pages of at most ``PAGE_BYTES``, or of one item that is longer."""
    page: list[Entry] = []
    size = 0
    for item in items:
        length = item.ByteSize()
        if page and size + length > PAGE_BYTES:
            yield page
            page, size = [], 0
        page.append(item)
        size += length
    if page:
        yield page


def to_timestamp(at: datetime) -> Timestamp:
    """A moment; one without a time zone is none."""
    if at.tzinfo is None:
        raise ValueError(f"the time {at.isoformat()} must say in which time zone it is")
    made = Timestamp()
    made.FromDatetime(at)
    return made


def to_optional_timestamp(at: datetime | None) -> Timestamp | None:
    """A moment, where there is one; None leaves the field unset."""
    return None if at is None else to_timestamp(at)


def from_timestamp(owner: ProtoMessage, field: str) -> datetime:
    """The time in a field that must be set."""
    at = from_optional_timestamp(owner, field)
    if at is None:
        raise ValueError(f"{owner.DESCRIPTOR.name}.{field} must be set")
    return at


def from_optional_timestamp(owner: ProtoMessage, field: str) -> datetime | None:
    """The time in a field, where it is set."""
    if not owner.HasField(field):
        return None
    made: Timestamp = getattr(owner, field)
    return made.ToDatetime(tzinfo=UTC)


def to_scope(scope: Scope) -> pb.Scope:
    """Whose memory."""
    return pb.Scope(tenant=scope.tenant, contact_id=scope.contact_id)


def from_scope(scope: pb.Scope) -> Scope:
    """Whose memory; one that is not set names nobody, which the memory refuses."""
    return Scope(tenant=scope.tenant, contact_id=scope.contact_id)


def to_message(message: Message) -> pb.Message:
    """Something said; what could not be stored of its text is left out, as the memory leaves it out."""
    return pb.Message(
        id=message.id,
        role=_number(_ROLES, message.role, "role"),
        text=make_storable(message.text),
        at=to_timestamp(message.at),
        session_id=message.session_id,
        channel_id=make_storable(message.channel_id),
    )


def from_message(message: pb.Message) -> Message:
    """Something said."""
    return Message(
        id=message.id,
        role=_name(_ROLES, message.role, "role"),
        text=message.text,
        at=from_timestamp(message, "at"),
        session_id=message.session_id,
        channel_id=message.channel_id,
    )


def to_hit(hit: Hit) -> pb.Hit:
    """Something remembered."""
    return pb.Hit(
        kind=_number(_KINDS, hit.kind, "kind of hit"),
        id=hit.id,
        text=hit.text,
        at=to_timestamp(hit.at),
        session_id=hit.session_id,
        score=hit.score,
        legs=[pb.LegRank(leg=each.retriever, rank=each.rank, score=each.score) for each in hit.ranks],
    )


def from_hit(hit: pb.Hit) -> Hit:
    """Something remembered."""
    return Hit(
        kind=_name(_KINDS, hit.kind, "kind of hit"),
        id=hit.id,
        text=hit.text,
        at=from_timestamp(hit, "at"),
        session_id=hit.session_id,
        score=hit.score,
        ranks=tuple(RetrieverRank(leg.leg, leg.rank, leg.score) for leg in hit.legs),
    )


def to_node(node: Node) -> pb.Node:
    """A thing."""
    return pb.Node(kind=node.kind, key=node.key, label=node.label)


def from_node(node: pb.Node) -> Node:
    """A thing."""
    return Node(kind=node.kind, key=node.key, label=node.label)


def to_edge(edge: Edge) -> pb.Edge:
    """How two things are related."""
    return pb.Edge(
        source=to_node(edge.source),
        type=edge.type,
        target=to_node(edge.target),
        valid_from=to_timestamp(edge.valid_from),
        valid_to=to_optional_timestamp(edge.valid_to),
        source_message_id=edge.source_message_id,
    )


def from_edge(edge: pb.Edge) -> Edge:
    """How two things are related."""
    return Edge(
        source=from_node(edge.source),
        type=edge.type,
        target=from_node(edge.target),
        valid_from=from_timestamp(edge, "valid_from"),
        valid_to=from_optional_timestamp(edge, "valid_to"),
        source_message_id=edge.source_message_id,
    )


def to_new_fact(fact: NewFact) -> pb.NewFact:
    """A statement to be remembered."""
    return pb.NewFact(
        subject=fact.subject,
        predicate=fact.predicate,
        object=fact.object,
        confidence=fact.confidence,
        source_message_id=fact.source_message_id,
        valid_from=to_optional_timestamp(fact.valid_from),
        scope_key=fact.scope_key,
        correction=fact.correction,
        instead_of=fact.instead_of,
        ended=fact.ended,
    )


def from_new_fact(fact: pb.NewFact) -> NewFact:
    """A statement to be remembered."""
    return NewFact(
        subject=fact.subject,
        predicate=fact.predicate,
        object=fact.object,
        confidence=fact.confidence,
        source_message_id=fact.source_message_id,
        valid_from=from_optional_timestamp(fact, "valid_from"),
        scope_key=fact.scope_key,
        correction=fact.correction,
        instead_of=fact.instead_of,
        ended=fact.ended,
    )


def to_fact(fact: Fact) -> pb.Fact:
    """A statement as it is kept."""
    return pb.Fact(
        id=fact.id,
        subject=fact.subject,
        predicate=fact.predicate,
        object=fact.object,
        scope_key=fact.scope_key,
        confidence=fact.confidence,
        source_message_id=fact.source_message_id,
        valid_from=to_timestamp(fact.valid_from),
        valid_to=to_optional_timestamp(fact.valid_to),
        recorded_at=to_timestamp(fact.recorded_at),
        superseded_at=to_optional_timestamp(fact.superseded_at),
        superseded_by=fact.superseded_by,
    )


def from_fact(fact: pb.Fact) -> Fact:
    """A statement as it is kept."""
    return Fact(
        id=fact.id,
        subject=fact.subject,
        predicate=fact.predicate,
        object=fact.object,
        scope_key=fact.scope_key,
        confidence=fact.confidence,
        source_message_id=fact.source_message_id,
        valid_from=from_timestamp(fact, "valid_from"),
        valid_to=from_optional_timestamp(fact, "valid_to"),
        recorded_at=from_timestamp(fact, "recorded_at"),
        superseded_at=from_optional_timestamp(fact, "superseded_at"),
        superseded_by=fact.superseded_by if fact.HasField("superseded_by") else None,
    )


def to_fact_change(change: FactChange) -> pb.FactChange:
    """What became of a new fact."""
    return pb.FactChange(
        fact=to_fact(change.fact),
        outcome=_number(_OUTCOMES, change.outcome, "outcome"),
        closed=to_fact(change.closed) if change.closed else None,
    )


def from_fact_change(change: pb.FactChange) -> FactChange:
    """What became of a new fact."""
    return FactChange(
        fact=from_fact(change.fact),
        outcome=_name(_OUTCOMES, change.outcome, "outcome"),
        closed=from_fact(change.closed) if change.HasField("closed") else None,
    )


def to_item_type(type: NoteType) -> pb.ItemType.ValueType:  # noqa: A002 - as the port names it
    """How long a note is kept."""
    return _number(_TYPES, type, "type")


def from_item_type(number: pb.ItemType.ValueType) -> NoteType:
    """How long a note is kept."""
    return _name(_TYPES, number, "type")


def to_item(item: Note) -> pb.Item:
    """A note."""
    return pb.Item(
        id=item.id,
        type=to_item_type(item.type),
        agent=item.agent,
        text=item.text,
        remembered_at=to_timestamp(item.remembered_at),
        uses=item.uses,
    )


def from_item(item: pb.Item) -> Note:
    """A note."""
    return Note(
        id=item.id,
        type=from_item_type(item.type),
        agent=item.agent,
        text=item.text,
        remembered_at=from_timestamp(item, "remembered_at"),
        uses=item.uses,
    )


def from_routed(routed: pb.RouteResponse) -> StrategyChoice:
    """By which strategy to search."""
    if routed.intent not in get_args(StrategyName):
        raise ValueError(f"intent {routed.intent!r} is not known")
    strategy = cast("StrategyName", routed.intent)
    return StrategyChoice(strategy=strategy, confidence=routed.confidence, degraded=tuple(routed.degraded))


def to_context(context: AssembledContext) -> pb.AssembleContextResponse:
    """What a prompt is told."""
    return pb.AssembleContextResponse(
        text=context.text,
        tokens=context.tokens,
        hits=[to_hit(hit) for hit in context.hits],
        degraded=context.degraded,
        strategy=context.strategy,
        token_budget=context.token_budget,
        sections=[
            pb.ContextSection(
                name=section.name,
                tokens=section.tokens,
                included=section.included,
                left_out=[pb.LeftOut(id=each.id, why=each.why) for each in section.omitted],
            )
            for section in context.sections
        ],
        facts=[to_fact(fact) for fact in context.facts],
    )


def from_context(context: pb.AssembleContextResponse) -> AssembledContext:
    """What a prompt is told."""
    return AssembledContext(
        text=context.text,
        tokens=context.tokens,
        token_budget=context.token_budget,
        strategy=context.strategy,
        sections=tuple(
            ContextSection(
                name=section.name,
                tokens=section.tokens,
                included=tuple(section.included),
                omitted=tuple(OmittedItem(each.id, each.why) for each in section.left_out),
            )
            for section in context.sections
        ),
        hits=tuple(from_hit(hit) for hit in context.hits),
        facts=tuple(from_fact(fact) for fact in context.facts),
        degraded=tuple(context.degraded),
    )
