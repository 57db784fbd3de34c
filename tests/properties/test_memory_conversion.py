"""For any values of the memory port, converting them to protobuf and back changes nothing."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import get_args

from google.protobuf.message import Message as ProtoMessage
from hypothesis import given, settings
from hypothesis import strategies as st

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
)
from core.memory.values import HitKind
from memory import grpc_conversion as conversion
from memory.proto import memory_pb2 as pb
from tests.support.profiles import examples

# What the memory keeps: see core.texts.make_storable.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
times = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
times_or_none = st.none() | times
floats = st.floats(allow_nan=False)
numbers = st.integers(0, 2**31 - 1)

nodes = st.builds(Node, texts, texts, texts)
messages = st.builds(
    Message,
    id=texts,
    role=st.sampled_from(get_args(Role)),
    text=texts,
    at=times,
    session_id=texts,
    channel_id=texts,
)
hits = st.builds(
    Hit,
    kind=st.sampled_from(get_args(HitKind)),
    id=texts,
    text=texts,
    at=times,
    session_id=texts,
    score=floats,
    ranks=st.lists(st.builds(RetrieverRank, texts, numbers, floats), max_size=3).map(tuple),
)
edges = st.builds(
    Edge,
    source=nodes,
    type=texts,
    target=nodes,
    valid_from=times,
    valid_to=times_or_none,
    source_message_id=texts,
)
new_facts = st.builds(
    NewFact,
    subject=texts,
    predicate=texts,
    object=texts,
    confidence=floats,
    source_message_id=texts,
    valid_from=times_or_none,
    scope_key=texts,
    correction=st.booleans(),
    instead_of=texts,
    ended=st.booleans(),
)
facts = st.builds(
    Fact,
    id=texts,
    subject=texts,
    predicate=texts,
    object=texts,
    scope_key=texts,
    confidence=floats,
    source_message_id=texts,
    valid_from=times,
    valid_to=times_or_none,
    recorded_at=times,
    superseded_at=times_or_none,
    superseded_by=st.none() | texts,
)
changes = st.builds(
    FactChange,
    fact=facts,
    outcome=st.sampled_from(get_args(conversion.FactOutcome)),
    closed=st.none() | facts,
)
notes = st.builds(
    Note,
    id=texts,
    type=st.sampled_from(get_args(NoteType)),
    agent=texts,
    text=texts,
    remembered_at=times,
    uses=numbers,
)


contexts = st.builds(
    AssembledContext,
    text=texts,
    tokens=numbers,
    token_budget=numbers,
    strategy=texts,
    sections=st.lists(
        st.builds(
            ContextSection,
            name=texts,
            tokens=numbers,
            included=st.lists(texts, max_size=2).map(tuple),
            omitted=st.lists(st.builds(OmittedItem, texts, texts), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    hits=st.lists(hits, max_size=1).map(tuple),
    facts=st.lists(facts, max_size=1).map(tuple),
    degraded=st.lists(texts, max_size=2).map(tuple),
)


@settings(max_examples=examples(30))
@given(contexts)
def test_a_context_survives_the_conversion(context: AssembledContext) -> None:
    kept = pb.AssembleContextResponse.FromString(sent(conversion.to_context(context)))
    assert conversion.from_context(kept) == context


@given(messages, hits, edges)
def test_messages_hits_and_edges_survive_the_conversion(message: Message, hit: Hit, edge: Edge) -> None:
    assert conversion.from_message(pb.Message.FromString(sent(conversion.to_message(message)))) == message
    assert conversion.from_hit(pb.Hit.FromString(sent(conversion.to_hit(hit)))) == hit
    assert conversion.from_edge(pb.Edge.FromString(sent(conversion.to_edge(edge)))) == edge


@given(new_facts, changes, notes)
def test_facts_and_notes_survive_the_conversion(new_fact: NewFact, change: FactChange, note: Note) -> None:
    assert conversion.from_new_fact(pb.NewFact.FromString(sent(conversion.to_new_fact(new_fact)))) == new_fact
    assert (
        conversion.from_fact_change(pb.FactChange.FromString(sent(conversion.to_fact_change(change))))
        == change
    )
    assert conversion.from_note(pb.Note.FromString(sent(conversion.to_note(note)))) == note


def sent(message: ProtoMessage) -> bytes:
    return message.SerializeToString()


@given(st.lists(st.integers(0, 2 * conversion.PAGE_BYTES), max_size=12))
def test_pages_hold_the_whole_list_and_are_as_full_as_allowed(sizes: list[int]) -> None:
    listed = [pb.Node(kind=str(place), key="x" * size) for place, size in enumerate(sizes)]
    pages = list(conversion.paginate(listed))
    assert [node.kind for page in pages for node in page] == [node.kind for node in listed]
    lengths = [[node.ByteSize() for node in page] for page in pages]
    assert all(len(page) == 1 or sum(page) <= conversion.PAGE_BYTES for page in lengths)
    assert all(sum(page) + after[0] > conversion.PAGE_BYTES for page, after in pairwise(lengths))
