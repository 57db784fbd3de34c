"""What the coordinator is given, keeps and answers."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, Field, JsonValue
from typing_extensions import TypedDict

from core.packing import ContextRecord
from nodes.shared.channels import Messages, StoredText
from nodes.shared.memory import MemoryUse, PendingMessage, merge_outbox

Path: TypeAlias = Literal["agent", "merged", "clarification", "general", "handoff"]
Outcome: TypeAlias = Literal["answered", "failed", "timed_out"]
Reason: TypeAlias = Literal["agents_failed", "handoff_not_recorded"]
# Why an agent was chosen.
Chosen: TypeAlias = Literal["sure", "model", "likely", "conversation", "default", "fallback"]


class CoordinatorInput(BaseModel):
    """A customer's message."""

    message: str = Field(min_length=1, max_length=20_000, description="What the customer wrote")
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact who wrote; tools act on no other"
    )
    channel_id: str = Field("", max_length=200, description="Where they wrote; empty: not known")
    session_id: str = Field(
        "",
        max_length=255,
        description="Session to go on with, which is a thread; empty: the thread the run is on",
    )
    message_id: str = Field(
        "",
        max_length=200,
        description="The message's id where it comes from: memory keeps it once; empty: it is given one",
    )
    metadata: dict[str, JsonValue] = Field(
        default_factory=dict, max_length=100, description="Whatever the CRM wants to keep with the message"
    )


class Alternative(TypedDict):
    """An agent that could have answered."""

    agent: str
    category: str
    confidence: Annotated[float, Field(description="Calibrated probability that it is the right one, 0 to 1")]


class Dispatched(TypedDict):
    """An agent that is given the message, or a part of it."""

    agent: str
    category: str
    confidence: Annotated[float, Field(description="Calibrated probability that it is the right one, 0 to 1")]
    chosen: Annotated[
        Chosen,
        Field(
            description="sure: by its example messages; model: these were close, the model decided; likely: "
            "they were close, and no model could decide; "
            "conversation: it goes on with the session; default: no agent was likely; fallback: another "
            "failed"
        ),
    ]
    part: Annotated[str, Field(description="What of the message it answers")]


class TeamCall(TypedDict):
    """What an agent said when it called a person."""

    team: str
    reason: str


class Attempt(TypedDict):
    """What became of an agent's work on a message."""

    agent: str
    outcome: Outcome
    reason: Annotated[str, Field(description="Why it did not answer; empty when it did")]
    response: Annotated[str, Field(description="What it said, or the best it had")]
    actions: Annotated[list[str], Field(description="The tools that did what they do, in order")]
    called: Annotated[TeamCall | None, Field(description="The people it called; null when it called none")]


class Handoff(TypedDict):
    """Whether a person should take over."""

    recommended: bool
    recorded: Annotated[bool, Field(description="Whether the CRM has it; if not, the caller must see to it")]
    team: Annotated[str, Field(description="Which people; empty when none are needed")]
    reason: Annotated[str, Field(description="Why; empty when none are needed")]


NO_HANDOFF = Handoff(recommended=False, recorded=False, team="", reason="")


def gathered(kept: Sequence[Attempt], new: Sequence[Attempt]) -> list[Attempt]:
    """The attempts in the order they ended; an empty list begins anew."""
    return [*kept, *new] if new else []


class CoordinatorState(TypedDict):
    """The state of a session; all but ``messages`` and ``last_agent`` is about its latest message."""

    messages: Messages
    # A checkpoint keeps a text as jsonb; lists and objects go into a blob, which takes anything.
    message: StoredText
    contact_id: StoredText
    # As given: only ``prepare`` sees them, so that a run without them does not get the last run's.
    channel_id: Annotated[str, EphemeralValue]
    message_id: Annotated[str, EphemeralValue]
    metadata: Annotated[dict[str, Any], EphemeralValue]
    session_id: StoredText
    # Id of the message the current run began with; everything before it is earlier conversation.
    turn: str
    # What the CRM knows of the customer, as JSON for the agents; empty when it could not be asked.
    customer: StoredText
    # What was said that memory does not have yet: it was away, or the run did not come to its end.
    outbox: Annotated[list[PendingMessage], merge_outbox]
    # The session so far in short, and the id of the last message it tells of.
    summary: StoredText
    summarised_to: StoredText
    # What each agent was told beside its task, and what was left out.
    context: list[ContextRecord]
    memory: MemoryUse
    # Whether a person took over, or the customer said goodbye.
    ends_session: bool
    # Who went on with the customer last; empty: nobody yet.
    last_agent: StoredText
    # What the customer had asked when they were asked back; empty: they were not.
    unclear_message: StoredText
    dispatched: list[Dispatched]
    alternatives: list[Alternative]
    attempts: Annotated[list[Attempt], gathered]
    handoff: Handoff
    path: Path
    success: bool
    response: StoredText
    agent_used: StoredText
    category: StoredText
    confidence: float
    reason: Reason | None


class CoordinatorOutput(TypedDict):
    """The answer."""

    success: Annotated[bool, Field(description="Whether the customer was answered, or handed over as asked")]
    response: Annotated[str, Field(description="What to tell the customer; empty while a person must decide")]
    agent_used: Annotated[str, Field(description="Who answered; empty: no agent, but the coordinator itself")]
    category: Annotated[str, Field(description="What kind of message it was")]
    confidence: Annotated[
        float, Field(description="Calibrated probability that it was for that agent, 0 to 1")
    ]
    alternatives: Annotated[list[Alternative], Field(description="Other agents it could have been for")]
    session_id: Annotated[str, Field(description="Give it back with the customer's next message")]
    handoff: Annotated[Handoff, Field(description="Whether a person should take over")]
    path: Annotated[
        Path,
        Field(
            description="agent: its answer; merged: two agents'; clarification: the customer was asked back; "
            "general: the general agent's, as no other answered; handoff: a person takes over"
        ),
    ]
    dispatched: Annotated[list[Dispatched], Field(description="Who was given the message, and why they")]
    attempts: Annotated[list[Attempt], Field(description="Every agent that tried, and what came of it")]
    reason: Annotated[Reason | None, Field(description="Why success is false; null otherwise")]
    ends_session: Annotated[bool, Field(description="Whether the conversation came to its end")]
    context: Annotated[
        list[ContextRecord],
        Field(description="What each agent was told beside its task, what was left out, and why"),
    ]
    memory: Annotated[MemoryUse, Field(description="Whether memory could be used")]
    messages: Annotated[list[AnyMessage], Field(description="The session's conversation")]


class SpecialistInput(TypedDict):
    """What one ``specialist`` task is sent: who works, on what, and what is known."""

    agent: str
    task: str
    contact_id: str
    background: str
