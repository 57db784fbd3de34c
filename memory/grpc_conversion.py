"""Conversion between the memory port's values and the messages of ``memory.proto``.

Every function raises ``ValueError`` for a value that the other form cannot represent. The caller knows
whether that is a bad request or the response of a server of another version.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast, get_args

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

# Small enough not to hold up other calls on the connection, and large enough for most lists.
PAGE_BYTES: Final = 256 * 1024


def _map_numbers(names: Iterable[Name], enum: Mapping[str, Number], prefix: str) -> dict[Name, Number]:
    """Map the port's names to the numbers of the enum's members."""
    return {name: enum[f"{prefix}_{name.upper()}"] for name in names}


_ROLES: Final = _map_numbers(cast("tuple[Role, ...]", get_args(Role)), dict(pb.Role.items()), "ROLE")
_KINDS: Final = _map_numbers(
    cast("tuple[HitKind, ...]", get_args(HitKind)), dict(pb.HitKind.items()), "HIT_KIND"
)
_OUTCOMES: Final = _map_numbers(
    cast("tuple[FactOutcome, ...]", get_args(FactOutcome)), dict(pb.FactOutcome.items()), "FACT_OUTCOME"
)
_TYPES: Final = _map_numbers(
    cast("tuple[NoteType, ...]", get_args(NoteType)), dict(pb.NoteType.items()), "NOTE_TYPE"
)


def _to_number(numbers: Mapping[Name, Number], name: Name, what: str) -> Number:
    if name not in numbers:
        raise ValueError(f"{what} {name!r} is not known; there are {', '.join(numbers)}")
    return numbers[name]


def _to_name(numbers: Mapping[Name, Number], number: Number, what: str) -> Name:
    for name, known in numbers.items():
        if known == number:
            return name
    raise ValueError(f"{what} {number} is not known; there are {', '.join(numbers)}")


# Fields that have the same name and type in both forms.
_STATEMENT_FIELDS: Final = ("subject", "predicate", "object", "confidence", "source_message_id", "scope_key")
_FACT_FIELDS: Final = ("id", *_STATEMENT_FIELDS)
_NEW_FACT_FIELDS: Final = (*_STATEMENT_FIELDS, "correction", "instead_of", "ended")
_NOTE_FIELDS: Final = ("id", "agent", "text", "uses", "key")


def _copy_fields(source: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def paginate(items: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Yield the items in pages of at most ``PAGE_BYTES``; a larger item has a page of its own."""
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
    """Convert a time, which must have a time zone."""
    if at.tzinfo is None:
        raise ValueError(f"the time {at.isoformat()} must have a time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(at)
    return timestamp


def to_optional_timestamp(at: datetime | None) -> Timestamp | None:
    """Convert an optional time; None leaves the field unset."""
    return None if at is None else to_timestamp(at)


def from_timestamp(owner: ProtoMessage, field: str) -> datetime:
    """Return the time in a field that must be set."""
    at = from_optional_timestamp(owner, field)
    if at is None:
        raise ValueError(f"{owner.DESCRIPTOR.name}.{field} must be set")
    return at


def from_optional_timestamp(owner: ProtoMessage, field: str) -> datetime | None:
    """Return the time in a field, or None if it is not set."""
    if not owner.HasField(field):
        return None
    timestamp: Timestamp = getattr(owner, field)
    return timestamp.ToDatetime(tzinfo=UTC)


def to_scope(scope: Scope) -> pb.Scope:
    return pb.Scope(tenant=scope.tenant, contact_id=scope.contact_id)


def from_scope(scope: pb.Scope) -> Scope:
    """Convert a scope; the memory refuses one that is not set."""
    return Scope(tenant=scope.tenant, contact_id=scope.contact_id)


def to_message(message: Message) -> pb.Message:
    """Convert a message, without characters that the memory cannot store."""
    return pb.Message(
        id=message.id,
        role=_to_number(_ROLES, message.role, "role"),
        text=make_storable(message.text),
        at=to_timestamp(message.at),
        session_id=message.session_id,
        channel_id=make_storable(message.channel_id),
    )


def from_message(message: pb.Message) -> Message:
    return Message(
        id=message.id,
        role=_to_name(_ROLES, message.role, "role"),
        text=message.text,
        at=from_timestamp(message, "at"),
        session_id=message.session_id,
        channel_id=message.channel_id,
    )


def to_hit(hit: Hit) -> pb.Hit:
    return pb.Hit(
        kind=_to_number(_KINDS, hit.kind, "kind of hit"),
        id=hit.id,
        text=hit.text,
        at=to_timestamp(hit.at),
        session_id=hit.session_id,
        score=hit.score,
        ranks=[
            pb.RetrieverRank(retriever=each.retriever, rank=each.rank, score=each.score) for each in hit.ranks
        ],
        role=_to_number(_ROLES, hit.role, "role") if hit.role else pb.ROLE_UNSPECIFIED,
    )


def from_hit(hit: pb.Hit) -> Hit:
    return Hit(
        kind=_to_name(_KINDS, hit.kind, "kind of hit"),
        id=hit.id,
        text=hit.text,
        at=from_timestamp(hit, "at"),
        session_id=hit.session_id,
        score=hit.score,
        ranks=tuple(RetrieverRank(each.retriever, each.rank, each.score) for each in hit.ranks),
        role=_to_name(_ROLES, hit.role, "role") if hit.role else None,
    )


def to_node(node: Node) -> pb.Node:
    return pb.Node(kind=node.kind, key=node.key, label=node.label)


def from_node(node: pb.Node) -> Node:
    return Node(kind=node.kind, key=node.key, label=node.label)


def to_edge(edge: Edge) -> pb.Edge:
    return pb.Edge(
        source=to_node(edge.source),
        type=edge.type,
        target=to_node(edge.target),
        valid_from=to_timestamp(edge.valid_from),
        valid_to=to_optional_timestamp(edge.valid_to),
        source_message_id=edge.source_message_id,
    )


def from_edge(edge: pb.Edge) -> Edge:
    return Edge(
        source=from_node(edge.source),
        type=edge.type,
        target=from_node(edge.target),
        valid_from=from_timestamp(edge, "valid_from"),
        valid_to=from_optional_timestamp(edge, "valid_to"),
        source_message_id=edge.source_message_id,
    )


def to_new_fact(fact: NewFact) -> pb.NewFact:
    return pb.NewFact(
        **_copy_fields(fact, _NEW_FACT_FIELDS), valid_from=to_optional_timestamp(fact.valid_from)
    )


def from_new_fact(fact: pb.NewFact) -> NewFact:
    return NewFact(
        **_copy_fields(fact, _NEW_FACT_FIELDS), valid_from=from_optional_timestamp(fact, "valid_from")
    )


def to_fact(fact: Fact) -> pb.Fact:
    return pb.Fact(
        **_copy_fields(fact, _FACT_FIELDS),
        valid_from=to_timestamp(fact.valid_from),
        valid_to=to_optional_timestamp(fact.valid_to),
        recorded_at=to_timestamp(fact.recorded_at),
        superseded_at=to_optional_timestamp(fact.superseded_at),
        superseded_by=fact.superseded_by,
    )


def from_fact(fact: pb.Fact) -> Fact:
    return Fact(
        **_copy_fields(fact, _FACT_FIELDS),
        valid_from=from_timestamp(fact, "valid_from"),
        valid_to=from_optional_timestamp(fact, "valid_to"),
        recorded_at=from_timestamp(fact, "recorded_at"),
        superseded_at=from_optional_timestamp(fact, "superseded_at"),
        superseded_by=fact.superseded_by if fact.HasField("superseded_by") else None,
    )


def to_fact_change(change: FactChange) -> pb.FactChange:
    return pb.FactChange(
        fact=to_fact(change.fact),
        outcome=_to_number(_OUTCOMES, change.outcome, "outcome"),
        closed=to_fact(change.closed) if change.closed else None,
    )


def from_fact_change(change: pb.FactChange) -> FactChange:
    return FactChange(
        fact=from_fact(change.fact),
        outcome=_to_name(_OUTCOMES, change.outcome, "outcome"),
        closed=from_fact(change.closed) if change.HasField("closed") else None,
    )


def to_note_type(type: NoteType) -> pb.NoteType.ValueType:  # noqa: A002 - as the port names it
    return _to_number(_TYPES, type, "type")


def from_note_type(number: pb.NoteType.ValueType) -> NoteType:
    return _to_name(_TYPES, number, "type")


def to_note(note: Note) -> pb.Note:
    return pb.Note(
        **_copy_fields(note, _NOTE_FIELDS),
        type=to_note_type(note.type),
        remembered_at=to_timestamp(note.remembered_at),
    )


def from_note(note: pb.Note) -> Note:
    return Note(
        **_copy_fields(note, _NOTE_FIELDS),
        type=from_note_type(note.type),
        remembered_at=from_timestamp(note, "remembered_at"),
    )


def from_choice(response: pb.RouteResponse) -> StrategyChoice:
    if response.intent not in get_args(StrategyName):
        raise ValueError(f"intent {response.intent!r} is not known")
    strategy = cast("StrategyName", response.intent)
    return StrategyChoice(
        strategy=strategy, confidence=response.confidence, degraded=tuple(response.degraded)
    )


def to_context(context: AssembledContext) -> pb.AssembleContextResponse:
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
                omitted=[pb.OmittedItem(id=each.id, why=each.why) for each in section.omitted],
            )
            for section in context.sections
        ],
        facts=[to_fact(fact) for fact in context.facts],
    )


def from_context(context: pb.AssembleContextResponse) -> AssembledContext:
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
                omitted=tuple(OmittedItem(each.id, each.why) for each in section.omitted),
            )
            for section in context.sections
        ),
        hits=tuple(from_hit(hit) for hit in context.hits),
        facts=tuple(from_fact(fact) for fact in context.facts),
        degraded=tuple(context.degraded),
    )
