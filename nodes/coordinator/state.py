"""The input, output and state of the coordinator."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from langgraph.types import Overwrite
from pydantic import BaseModel, Field, JsonValue
from typing_extensions import TypedDict

from core.packing import ContextRecord
from nodes.shared.channels import Messages, StoredText
from nodes.shared.citations import Grounding, no_grounding
from nodes.shared.memory import NO_MEMORY_USE, MemoryUse, PendingMessage, merge_outbox

AnswerPath: TypeAlias = Literal["agent", "merged", "clarification", "general", "handoff", "journey", "person"]
Outcome: TypeAlias = Literal["answered", "failed", "timed_out"]
FailureReason: TypeAlias = Literal["agents_failed", "answer_rejected", "handoff_not_recorded"]
# Why an agent was selected; ``Dispatch.chosen`` describes the values.
SelectionReason: TypeAlias = Literal[
    "sure", "model", "likely", "conversation", "default", "fallback", "journey"
]


class CoordinatorInput(BaseModel):
    """A customer's message."""

    message: str = Field(min_length=1, max_length=20_000, description="What the customer wrote")
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact who wrote; tools act on no other"
    )
    channel_id: str = Field("", max_length=200, description="The channel they wrote on; empty: unknown")
    session_id: str = Field(
        "",
        max_length=255,
        description="Session to continue, which is a thread; empty: the thread of the run",
    )
    message_id: str = Field(
        "",
        max_length=200,
        description="The message's id in its source, by which memory stores it once; empty: a new id",
    )
    metadata: dict[str, JsonValue] = Field(
        default_factory=dict, max_length=100, description="Data of the CRM to store with the message"
    )


class Alternative(TypedDict):
    """An agent that could have answered."""

    agent: str
    category: str
    confidence: Annotated[float, Field(description="Calibrated probability that it is the right one, 0 to 1")]


class Dispatch(TypedDict):
    """An agent that works on the message, or on a part of it."""

    agent: str
    category: str
    confidence: Annotated[float, Field(description="Calibrated probability that it is the right one, 0 to 1")]
    chosen: Annotated[
        SelectionReason,
        Field(
            description="sure: its examples decided; model: several agents were close and the model decided; "
            "likely: several were close, and no model could decide; conversation: it continues the session; "
            "default: no agent was likely; fallback: another agent failed; journey: it belongs to the "
            "onboarding or to a deal"
        ),
    ]
    part: Annotated[str, Field(description="The part of the message it answers")]


class TeamCall(TypedDict):
    """An agent's call for a person."""

    team: str
    reason: str


class Attempt(Grounding):
    """The result of an agent's work on a message."""

    agent: str
    outcome: Outcome
    reason: Annotated[str, Field(description="Why it did not answer; empty when it did")]
    response: Annotated[str, Field(description="Its answer, or the best it had")]
    actions: Annotated[list[str], Field(description="The tools it called with success, in order")]
    called: Annotated[TeamCall | None, Field(description="Its call for a person; null: none")]


class Handoff(TypedDict):
    """Whether a person should take over."""

    recommended: bool
    recorded: Annotated[bool, Field(description="Whether the CRM has recorded it; if not, the caller must")]
    team: Annotated[str, Field(description="The team; empty when none is needed")]
    reason: Annotated[str, Field(description="Why; empty when none is needed")]


NO_HANDOFF = Handoff(recommended=False, recorded=False, team="", reason="")


def add_attempts(attempts: Sequence[Attempt], new: Sequence[Attempt]) -> list[Attempt]:
    """Reducer: append the new attempts."""
    return [*attempts, *new]


class CoordinatorState(Grounding):
    """The state of a session; fields without a comment are about its latest message."""

    # The conversation.
    messages: Messages
    message: StoredText
    contact_id: StoredText
    # For ``prepare`` alone; ephemeral, so that a run without them does not see the last run's.
    channel_id: Annotated[str, EphemeralValue]
    message_id: Annotated[str, EphemeralValue]
    metadata: Annotated[dict[str, Any], EphemeralValue]
    session_id: StoredText
    # Id of the message; what comes before it in ``messages`` is the earlier conversation.
    turn: str
    # The customer's CRM profile as JSON; empty when the CRM was unavailable.
    customer: StoredText
    # What was said that memory does not have yet: it was away, or the run did not come to its end.
    outbox: Annotated[list[PendingMessage], merge_outbox]
    # A summary of the session, and the id of the last message it covers.
    summary: StoredText
    summarised_to: StoredText
    context: list[ContextRecord]
    memory: MemoryUse
    ends_session: bool
    # The agent that answered last in the session; empty: none yet.
    last_agent: StoredText
    # The customer's last message, if the coordinator asked back what it is about; else empty.
    unclear_message: StoredText
    dispatched: list[Dispatch]
    alternatives: list[Alternative]
    attempts: Annotated[list[Attempt], add_attempts]
    handoff: Handoff
    path: AnswerPath
    success: bool
    response: StoredText
    # The answer while a person decides on it.
    draft: StoredText
    agent_used: StoredText
    category: StoredText
    confidence: float
    reason: FailureReason | None


def reset_turn() -> dict[str, Any]:
    """Return the update that clears what the last message left in the state."""
    return {
        "context": [],
        "ends_session": False,
        "memory": NO_MEMORY_USE,
        "dispatched": [],
        "alternatives": [],
        "attempts": Overwrite([]),
        "handoff": NO_HANDOFF,
        "path": "agent",
        "success": False,
        "response": "",
        "draft": "",
        "agent_used": "",
        "category": "",
        "confidence": 0.0,
        "reason": None,
        **no_grounding(),
    }


class CoordinatorOutput(Grounding):
    """The answer to the customer."""

    success: Annotated[bool, Field(description="Whether the customer was answered, or handed over by a rule")]
    response: Annotated[
        str, Field(description="The answer to the customer; empty while a person must decide")
    ]
    agent_used: Annotated[str, Field(description="The agent that answered; empty: the coordinator itself")]
    category: Annotated[str, Field(description="The category of the message")]
    confidence: Annotated[
        float, Field(description="Calibrated probability that the message was for that agent, 0 to 1")
    ]
    alternatives: Annotated[list[Alternative], Field(description="Other agents that could have answered")]
    session_id: Annotated[str, Field(description="Send it with the customer's next message")]
    handoff: Annotated[Handoff, Field(description="Whether a person should take over")]
    path: Annotated[
        AnswerPath,
        Field(
            description="agent: an agent answered; merged: two agents answered; clarification: the customer "
            "was asked back; general: the general agent answered after others failed; handoff: a person "
            "takes over; person: a person has taken over, to whom the message went or who wrote it"
        ),
    ]
    dispatched: Annotated[list[Dispatch], Field(description="The agents that worked on it, and why these")]
    attempts: Annotated[list[Attempt], Field(description="Every agent that tried, and the result")]
    reason: Annotated[FailureReason | None, Field(description="Why success is false; null otherwise")]
    ends_session: Annotated[
        bool, Field(description="Whether a person took over or the customer said goodbye")
    ]
    context: Annotated[
        list[ContextRecord],
        Field(description="What each agent was told besides its task, what was left out, and why"),
    ]
    memory: Annotated[MemoryUse, Field(description="Whether memory could be used")]
    messages: Annotated[list[AnyMessage], Field(description="The session's conversation")]


class SpecialistInput(TypedDict):
    """The input of one ``specialist`` task."""

    agent: str
    task: str
    contact_id: str
    # The customer's CRM profile as JSON; empty: unknown.
    customer: str
    background: str
    # Whether another agent answers another part of the message, so that the answers are merged.
    is_part: NotRequired[bool]
