"""The values of the memory port. Every datetime is timezone-aware and in UTC."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from core.memory.strategies import StrategyName

Role: TypeAlias = Literal["customer", "agent", "human", "note"]
HitKind: TypeAlias = Literal["message", "fact", "summary", "node", "item"]
NoteType: TypeAlias = Literal["short_term", "working", "long_term", "shared"]


@dataclass(frozen=True, slots=True)
class Scope:
    """The contact that a call is about; no call reads or writes outside of it.

    Attributes:
        tenant: The company that uses the service.
        contact_id: The customer of that company.
    """

    tenant: str
    contact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a conversation, or a note.

    Attributes:
        id: Unique within its scope; a message that is added twice is stored once.
        role: Who wrote it; ``human`` is a person of the company, ``note`` a person's note about the contact.
        text: The text.
        at: When it was written.
        session_id: The conversation it is part of.
        channel_id: The channel it was sent on.
    """

    id: str
    role: Role
    text: str
    at: datetime
    session_id: str
    channel_id: str = ""


@dataclass(frozen=True, slots=True)
class RetrieverRank:
    """The rank that one retriever gave a hit.

    Attributes:
        retriever: ``vector``, ``keyword``, ``trigram``, ``graph``, ``fact``, ``recent``, ``temporal`` or
            ``rerank``.
        rank: From 1.
        score: Higher is better; scores of different retrievers do not compare.
    """

    retriever: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """Something found in memory, with the ranks that its score is made of.

    Attributes:
        kind: What it is.
        id: Unique among hits of its kind.
        text: Its text; of a long message, the part that matched.
        at: When it was written; of a fact, since when it is valid.
        session_id: The conversation it is from; empty: none.
        score: The fused score: higher is better; scores of different searches do not compare.
        ranks: The rank that each retriever gave it.
        role: Who wrote the message; ``None``: it is no message.
    """

    kind: HitKind
    id: str
    text: str
    at: datetime
    session_id: str
    score: float
    ranks: tuple[RetrieverRank, ...]
    role: Role | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The result of a search.

    Attributes:
        hits: Best first, followed by the newest messages that are not among them.
        strategy: The retrieval strategy that was used.
        model: The embedding model, ``provider:model``.
        degraded: Retrievers that could not be used, or not fully, each with the reason.
        reasons: Retrievers that count for more, or less, because of the question's words, each with the
            reason.
    """

    hits: tuple[Hit, ...]
    strategy: str
    model: str
    degraded: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyChoice:
    """The strategy chosen for a message.

    Attributes:
        strategy: Its name.
        confidence: Calibrated probability that it is the right one, from 0 to 1.
        degraded: What could not be used, with the reason; the strategy is then ``general``.
    """

    strategy: StrategyName
    confidence: float
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A statement about the contact, with its valid time and its transaction time.

    Attributes:
        id: Unique within the scope.
        subject: What the statement is about.
        predicate: The property of the subject.
        object: The value of the property.
        scope_key: What the value applies to, if there may be one for each (a product, a place).
        confidence: From 0 to 1.
        source_message_id: The message it was learnt from.
        valid_from: Start of its valid time.
        valid_to: End of its valid time. ``None``: it is still valid.
        recorded_at: Start of its transaction time: since when it is believed.
        superseded_at: End of its transaction time. ``None``: it is still believed.
        superseded_by: The message that closed it.
    """

    id: str
    subject: str
    predicate: str
    object: str
    scope_key: str
    confidence: float
    source_message_id: str
    valid_from: datetime
    valid_to: datetime | None
    recorded_at: datetime
    superseded_at: datetime | None
    superseded_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFact:
    """A statement to be stored.

    Attributes:
        subject: What the statement is about.
        predicate: The property of the subject.
        object: The value of the property.
        confidence: From 0 to 1.
        source_message_id: The message it was learnt from.
        valid_from: Since when it is valid, or no longer valid if it ended. ``None``: since its message.
        scope_key: What the value applies to, if there may be one for each.
        correction: Whether the earlier value was never true, rather than changed.
        instead_of: The value that was never true, if the correction names it.
        ended: Whether the statement is no longer valid.
    """

    subject: str
    predicate: str
    object: str
    confidence: float
    source_message_id: str
    valid_from: datetime | None = None
    scope_key: str = ""
    correction: bool = False
    instead_of: str = ""
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FactChange:
    """What was done with a new fact.

    Attributes:
        fact: The fact as it is stored.
        outcome: Whether it was new, known, a change over time (or an end), or a correction.
        closed: The fact that was believed until then, with the message that closed it.
    """

    fact: Fact
    outcome: Literal["added", "repeated", "changed", "corrected"]
    closed: Fact | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the contact's graph: ``kind`` and ``key`` identify it, ``label`` is its display name."""

    kind: str
    key: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A relation between two nodes with its valid time."""

    source: Node
    type: str
    target: Node
    valid_from: datetime
    valid_to: datetime | None
    source_message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes and the edges between them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class OmittedItem:
    """The id of something that a context had no room for, and the reason."""

    id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSection:
    """A part of a context.

    Attributes:
        name: ``facts``, ``summary``, ``conversation`` or ``memories``.
        tokens: Tokens of its text.
        included: Ids of what is in it, in order.
        omitted: What is not in it.
    """

    name: str
    tokens: int
    included: tuple[str, ...]
    omitted: tuple[OmittedItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledContext:
    """Context on a contact for a prompt.

    Attributes:
        text: The sections, each between tags of its name.
        tokens: Tokens of the text, estimated.
        token_budget: Most tokens the text may have.
        strategy: The retrieval strategy that was used.
        sections: The sections in the order of the text.
        hits: The memories and summaries in it, best first.
        facts: The facts in it.
        degraded: What could not be used, or not fully, each with the reason.
    """

    text: str
    tokens: int
    token_budget: int
    strategy: str
    sections: tuple[ContextSection, ...]
    hits: tuple[Hit, ...]
    facts: tuple[Fact, ...]
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErasedCounts:
    """How many rows were erased from each table."""

    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note that an agent keeps for a while.

    Attributes:
        id: Unique within the scope.
        type: How long it is kept, and who sees it: all agents (``shared``), or only the one that wrote it.
        agent: The agent that wrote it.
        text: The note.
        remembered_at: When it was written or last renewed.
        uses: How often it was recalled.
        key: The name under which its agent keeps it; empty: none.
    """

    id: str
    type: NoteType
    agent: str
    text: str
    remembered_at: datetime
    uses: int
    key: str = ""
