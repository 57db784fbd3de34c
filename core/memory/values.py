"""The values of the memory port. Every datetime is aware and in UTC."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from core.memory.strategies import StrategyName

Role: TypeAlias = Literal["customer", "agent", "human", "note"]
HitKind: TypeAlias = Literal["message", "fact", "summary", "node", "item"]
NoteType: TypeAlias = Literal["short_term", "working", "long_term", "shared"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memory a call is about; nothing crosses it.

    Attributes:
        tenant: The company that uses the service.
        contact_id: Its customer.
    """

    tenant: str
    contact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something said, by whom and when.

    Attributes:
        id: Unique within its scope; a message that comes twice is kept once.
        role: Who said it; ``human`` is a person of the company, ``note`` a person's note about the contact.
        text: What was said.
        at: When it was said.
        session_id: The conversation it is part of.
        channel_id: Where it was said.
    """

    id: str
    role: Role
    text: str
    at: datetime
    session_id: str
    channel_id: str = ""


@dataclass(frozen=True, slots=True)
class RetrieverRank:
    """Where one way of searching put a hit.

    Attributes:
        retriever: ``vector``, ``keyword``, ``trigram``, ``graph``, ``fact``, ``recent`` or ``rerank``.
        rank: From 1.
        score: In the leg's own measure: higher is better, and legs do not compare.
    """

    retriever: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """Something remembered, and why it came.

    Attributes:
        kind: What it is.
        id: Its id among its kind.
        text: What it says; of a long message, the part that was found.
        at: When it was said; of a fact, since when it holds.
        session_id: The conversation it is from; empty where there is none.
        score: The fused score: higher is better, and results of different searches do not compare.
        ranks: The ranks that the score is made of.
    """

    kind: HitKind
    id: str
    text: str
    at: datetime
    session_id: str
    score: float
    ranks: tuple[RetrieverRank, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What was found, best first.

    Attributes:
        hits: Best first; then those of the newest messages that are not among the best.
        strategy: The retrieval strategy that was used.
        model: The embedding model, ``provider:model``.
        degraded: Legs that could not be used, or not fully, each with why.
    """

    hits: tuple[Hit, ...]
    strategy: str
    model: str
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyChoice:
    """By which strategy to search for a message.

    Attributes:
        strategy: Its name.
        confidence: How likely it is the right one, from 0 to 1, as calibrated on the strategies' examples.
        degraded: What could not be used, with why; the general strategy stands then.
    """

    strategy: StrategyName
    confidence: float
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A statement about the contact, with the time it holds for and the time it was believed.

    Attributes:
        id: Its id within the scope.
        subject: What it is about.
        predicate: Which of its properties.
        object: The value.
        scope_key: What the value is for, where there may be one for each (a product, a place).
        confidence: From 0 to 1.
        source_message_id: The message it was learnt from.
        valid_from: Since when it holds.
        valid_to: Until when; None: it still does.
        recorded_at: Since when it is believed.
        superseded_at: Until when it was; None: it still is.
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
    """A statement to be remembered.

    Attributes:
        subject: What it is about.
        predicate: Which of its properties.
        object: The value.
        confidence: From 0 to 1.
        source_message_id: The message it was learnt from.
        valid_from: Since when it holds, or where it ended since when not; None: since its message.
        scope_key: What the value is for, where there may be one for each.
        correction: Whether the earlier value was never true, and has not merely changed.
        instead_of: The value that was never true, where the correction names it.
        ended: Whether it holds no longer.
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
    """What became of a new fact.

    Attributes:
        fact: As it is kept.
        outcome: Whether it was new, known, a change over time (an end is one too), or a correction.
        closed: What was believed until then, with the message that ended that.
    """

    fact: Fact
    outcome: Literal["added", "repeated", "changed", "corrected"]
    closed: Fact | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A thing the contact's graph knows: ``kind`` and ``key`` name it, ``label`` is what people call it."""

    kind: str
    key: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """How two things are related, since when and, where it ended, until when."""

    source: Node
    type: str
    target: Node
    valid_from: datetime
    valid_to: datetime | None
    source_message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Things and how they are related."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class OmittedItem:
    """Something that a context had no room for, by its id, and why."""

    id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSection:
    """A part of a context.

    Attributes:
        name: ``facts``, ``summary``, ``conversation`` or ``memories``.
        tokens: That it takes.
        included: Ids of what is in it, in the order they stand.
        omitted: What is not.
    """

    name: str
    tokens: int
    included: tuple[str, ...]
    omitted: tuple[OmittedItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledContext:
    """What a prompt is told of a contact.

    Attributes:
        text: The sections, each between marks of its name.
        tokens: How many that is, about.
        token_budget: Most tokens there may be.
        strategy: The retrieval strategy that was used.
        sections: In the order they stand.
        hits: The memories and summaries that are in it, best first.
        facts: The facts that are in it.
        degraded: What could not be used, or not fully, each with why.
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
    """How many rows were erased, by table."""

    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note an agent keeps for a while.

    Attributes:
        id: Its id within the scope.
        type: How long it is kept, and who sees it: ``shared`` all agents, the others the one that wrote it.
        agent: Who wrote it.
        text: What it says.
        remembered_at: When it was written, or last written again.
        uses: How often it was recalled.
    """

    id: str
    type: NoteType
    agent: str
    text: str
    remembered_at: datetime
    uses: int
