"""Request and response models of ``/v1/memory``."""

from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from core.memory import NoteType, StrategyName
from core.memory.values import HitKind
from core.texts import is_storable


def _check_storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must not contain characters that cannot be stored, such as NUL")
    return text


Storable = AfterValidator(_check_storable)
Name = Annotated[str, Field(min_length=1, max_length=200), Storable]
OptionalName = Annotated[str, Field(max_length=200), Storable]
ContactId = Annotated[Name, Field(description="Whose memory")]
Agent = Annotated[
    Name,
    Field(description="The agent that keeps the note; notes that are not shared are seen by it alone"),
]
Query = Annotated[str, Field(max_length=10_000, description="The question, in words"), Storable]
# The agent of notes that no agent wrote.
CRM: Final = "crm"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class SearchRequest(_Body):
    """A question to a contact's memory."""

    contact_id: ContactId
    query: Query
    strategy: StrategyName = Field("general", description="How the retrievers are weighted")
    limit: int = Field(10, ge=1, le=100, description="Most hits, besides the newest messages")
    as_of: AwareDatetime | None = Field(None, description="Search the memory as it was then; null: now")


class RetrieverRankView(_View):
    """The rank that one retriever gave a hit."""

    retriever: str
    rank: int = Field(description="From 1")
    score: float = Field(description="Higher is better; scores of different retrievers do not compare")


class HitView(_View):
    """Something found in memory."""

    kind: HitKind
    id: str
    text: str = Field(description="Of a long message, the part that matched")
    at: AwareDatetime = Field(description="When it was written; of a fact, since when it is valid")
    session_id: str = Field(description="Empty: of no conversation")
    score: float = Field(description="Higher is better; scores of different searches do not compare")
    ranks: list[RetrieverRankView] = Field(description="What the score is made of")


class SearchResponse(_View):
    """What a search found, best first, followed by the newest messages."""

    hits: list[HitView]
    strategy: str
    model: str = Field(description="The embedding model, provider:model")
    degraded: list[str] = Field(description="Retrievers that could not be used, or not fully, and why")
    reasons: list[str] = Field(
        description="Retrievers that count for more, or less, because of the question's words, and why"
    )


class FactView(_View):
    """A statement about the contact, with its valid time and its transaction time."""

    id: str
    subject: str
    predicate: str
    object: str
    scope_key: str = Field(description="What the value applies to, if there may be one for each")
    confidence: float
    source_message_id: str
    valid_from: AwareDatetime
    valid_to: AwareDatetime | None = Field(description="null: it is still valid")
    recorded_at: AwareDatetime = Field(description="Since when it is believed")
    superseded_at: AwareDatetime | None = Field(description="null: it is still believed")
    superseded_by: str | None = Field(description="The message that closed it")


class Facts(BaseModel):
    """Facts about a contact."""

    facts: list[FactView]


class RememberRequest(_Body):
    """A note to keep."""

    contact_id: ContactId
    text: Annotated[str, Field(min_length=1, max_length=4_000), Storable]
    type: NoteType | None = Field(
        None, description="How long it is kept, and who sees it; null: chosen by its words"
    )
    agent: Agent = CRM
    key: OptionalName = Field("", description="Replaces the note under this key; empty: a note without one")


class NoteView(_View):
    """A note."""

    id: str
    type: NoteType
    agent: str
    key: str = Field(description="Empty: it has none")
    text: str
    remembered_at: AwareDatetime = Field(description="When it was written or last renewed")
    uses: int = Field(description="How often it was recalled")


class RememberedNote(BaseModel):
    """A note as it is stored, and why it has its type."""

    note: NoteView
    reason: str


class RecallRequest(_Body):
    """A question to an agent's own notes and the shared ones."""

    contact_id: ContactId
    query: Query = Field("", description="Empty: the newest notes")
    agent: Agent = CRM
    limit: int = Field(10, ge=1, le=100)


class RecalledNotes(BaseModel):
    """Notes, best first; the type of each is its rank's retriever."""

    notes: list[HitView]


class NoteText(_Body):
    """The text of a note with a key."""

    text: Annotated[str, Field(min_length=1, max_length=4_000), Storable]


class ForgetRequest(_Body):
    """What to erase."""

    contact_id: ContactId
    session_id: OptionalName = Field(
        "", description="What was learnt in this session alone; empty: everything about the contact"
    )


class Erased(_View):
    """What was erased."""

    counts: dict[str, int] = Field(description="Rows, by table; empty: nothing was remembered")
