"""The request and the response of ``POST /v1/messages``."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from core.packing import ContextRecord
from nodes.coordinator.state import Alternative, AnswerPath, Attempt, Dispatch, EarlierMessage, Handoff
from nodes.shared.citations import Citation
from nodes.shared.memory import MemoryUse
from service.conversations.journeys import JourneyView
from service.runs.inputs import require_storable
from service.runs.output import PendingInterrupt, RunMetadata
from service.runs.request import MultitaskStrategy


class MessageRequest(BaseModel):
    """A message of a customer."""

    model_config = ConfigDict(extra="forbid")

    _storable = model_validator(mode="before")(require_storable)

    contact_id: str = Field(min_length=1, max_length=200, description="Who wrote")
    message: str = Field(min_length=1, max_length=20_000, description="What they wrote")
    channel_id: str | None = Field(None, max_length=200, description="Where they wrote")
    session_id: str | None = Field(
        None,
        description="Session to continue; none: the contact's current one on the channel, if one is named, "
        "else a new one. A session is a thread",
    )
    message_id: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="The message's id where it comes from, so that one that is sent twice is answered once",
    )
    agent: str = Field(
        "", max_length=100, description="Who answers, see GET /v1/agents; empty: whoever the message is for"
    )
    history: list[EarlierMessage] = Field(
        default_factory=list,
        max_length=100,
        description="What was said before and the session does not hold; memory does not keep it",
    )
    metadata: dict[str, JsonValue] | None = Field(
        None, max_length=100, description="Stored with the run's checkpoints"
    )
    multitask_strategy: MultitaskStrategy = Field(
        "enqueue", description="When the session is busy: wait, answer 409, or stop the other run"
    )


class MessageMetadata(RunMetadata):
    """Which model answered, what the answer rests on, whether memory could be used, what agents were told."""

    memory: MemoryUse
    context: list[ContextRecord]
    citations: list[Citation] = Field(
        description="The records and articles of this run that the answer rests on"
    )
    unsupported: list[str] = Field(
        description="Numbers, dates and amounts of the answer that no source of this run holds"
    )


class MessageResponse(BaseModel):
    """The answer."""

    success: bool = Field(description="Whether the customer was answered, or handed over as asked")
    response: str = Field(description="What to tell the customer; empty while a person must decide")
    agent_used: str = Field(description="Who answered; empty: no agent, but the coordinator itself")
    category: str = Field(description="What kind of message it was")
    confidence: float = Field(description="Calibrated probability that it was for that agent, 0 to 1")
    alternatives: list[Alternative] = Field(description="Other agents it could have been for")
    session_id: str = Field(description="Give it back with the customer's next message")
    handoff: Handoff = Field(description="Whether a person should take over")
    path: AnswerPath = Field(
        description="agent: its answer; merged: two agents'; clarification: the customer was asked back; "
        "general: the general agent's, as no other answered; handoff: a person takes over; journey: the "
        "onboarding's or the deal's; person: a person has taken the conversation over and answers, so that "
        "`response` is empty"
    )
    journey: JourneyView | None = Field(description="The journey the message belongs to; null: none")
    dispatched: list[Dispatch] = Field(description="Which agents were given the message, and why")
    attempts: list[Attempt] = Field(description="Every agent that tried, and its outcome")
    ends_session: bool = Field(description="Whether the conversation came to its end, and is closed")
    interrupts: list[PendingInterrupt] = Field(
        description="Questions a person must decide before the answer; see /v1/approvals"
    )
    reason_incomplete: str | None = Field(description="Why success is false; null otherwise")
    metadata: MessageMetadata = Field(description="How the answer was made")
