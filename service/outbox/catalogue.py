"""The catalogue of domain events: one model per type and version, in a CloudEvents 1.0 envelope.

A change that a receiver could trip over (a field is removed, or means something else) is a new version: a new
model with another ``version``, beside the old one for as long as events of it may be stored. Fields may be
added to a version, so that receivers must ignore fields they do not know.

An event holds no words of a conversation except the answer that the customer was given. Whoever receives
events reads the rest of a conversation under the scopes of the HTTP API.
"""

from collections.abc import Mapping
from datetime import UTC
from typing import Any, ClassVar, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

# CloudEvents 1.0 and its extensions "partitioning" and "sequence".
SPEC_VERSION: Final = "1.0"
SOURCE: Final = "/ventros-agents"
CONTENT_TYPE: Final = "application/cloudevents+json"
# Sequences compare as texts, as the extension asks.
_SEQUENCE_DIGITS: Final = 12


class EventData(BaseModel):
    """The ``data`` of an event.

    Attributes:
        type: The event's type.
        version: Of the type's schema.
    """

    model_config = ConfigDict(extra="forbid")

    type: ClassVar[str] = ""
    version: ClassVar[int] = 1


class MessageAnswered(EventData):
    """A customer's message was answered, by the coordinator or in the journey it belongs to."""

    type = "message.answered"

    run_id: str
    graph: str = Field(description="The graph that answered")
    contact_id: str
    message_id: str = Field(description="The message's id where it came from; empty: it had none")
    session_id: str = Field(description="The session; empty: the journey's run does not know it")
    success: bool = Field(description="Whether it was answered, or handed over by a rule")
    response: str = Field(description="What the customer is told; empty: nothing")
    agent_used: str = Field(description="The agent that answered; empty: none")
    path: str = Field(description="How it was answered, as in the answer to POST /v1/messages")
    needs_person: bool = Field(description="Whether a person should take over")
    reason: str | None = Field(description="Why success is false")


class HandoffRequested(EventData):
    """The conversation was handed over to a team, and the CRM has recorded that."""

    type = "handoff.requested"

    handoff_id: str = Field(description="The hand-off's id in the CRM")
    contact_id: str
    team: str
    reason: str
    run_id: str


class ApprovalNeeded(EventData):
    """A run or a workflow waits for a person's decision."""

    type = "approval.needed"

    approval_id: str = Field(description="Decide it at POST /v1/approvals/{approval_id}")
    run_id: str = Field(description="The run; of a workflow its id")
    graph: str
    tool: str = Field(description="The tool whose call waits; empty: another question")


class ApprovalDecided(EventData):
    """A person has decided; recorded before the run continues with the decision."""

    type = "approval.decided"

    approval_id: str
    run_id: str
    graph: str
    tool: str
    decision: str = Field(description="approve, edit, reject, or answered")
    decided_by: str = Field(description="The user")


class SessionOpened(EventData):
    """A session was opened, or a closed one was resumed."""

    type = "session.opened"

    contact_id: str
    channel_id: str = Field(description="Empty: unknown")
    is_resumed: bool


class SessionClosed(EventData):
    """A session was closed. One that the agent closes is closed just before its last answer is recorded."""

    type = "session.closed"

    contact_id: str
    channel_id: str = Field(description="Empty: unknown")
    closed_by: Literal["idle", "agent"]
    opened_at: AwareDatetime


class SessionTakenOver(EventData):
    """A person has taken a conversation over: agents are silent in it."""

    type = "session.taken_over"

    contact_id: str = Field(description="Empty: nothing has been answered in it yet")
    person: str = Field(description="Who")


class SessionGivenBack(EventData):
    """A person has given a conversation back to the agents."""

    type = "session.given_back"

    contact_id: str = Field(description="Empty: nothing has been answered in it yet")
    person: str = Field(description="Who had it")


class FactLearned(EventData):
    """Memory holds a fact about a contact that it did not know before."""

    type = "fact.learned"

    contact_id: str
    fact_id: str = Field(description="Its id in memory")
    subject: str
    predicate: str
    object: str
    confidence: float
    valid_from: AwareDatetime
    valid_to: AwareDatetime | None = Field(description="Null: it holds")
    source_message_id: str = Field(description="The message that said so; empty: unknown")


class DealStageChanged(EventData):
    """An agent has moved a deal to another stage, and the CRM has recorded that."""

    type = "deal.stage_changed"

    deal_id: str = Field(description="The opportunity's id in the CRM")
    contact_id: str
    stage: str
    run_id: str


class WorkflowEnded(EventData):
    """A workflow has come to its end."""

    type = "workflow.ended"

    workflow_id: str
    client_id: str = Field(description="The caller's own id of it; empty: none")
    name: str
    status: Literal["succeeded", "failed", "cancelled"]
    error: str | None = Field(description="The code of the error")
    message: str | None = Field(description="Why it failed")


class RunFailed(EventData):
    """A run has failed. It may be retried, and then answered after all."""

    type = "run.failed"

    run_id: str
    graph: str
    error: str = Field(description="The code of the error, as in docs/errors.md")
    message: str
    attempts: int = Field(description="How many replicas have executed it")


class RunEnded(EventData):
    """A run that named a webhook has ended. It is sent to that webhook alone."""

    type = "run.ended"

    run_id: str
    thread_id: str = Field(description="Its state has the output: GET /threads/{thread_id}/state")
    graph: str
    status: str = Field(description="success, error, timeout or interrupted")
    assistant_id: str | None
    metadata: dict[str, Any]
    started_at: AwareDatetime | None
    ended_at: AwareDatetime


CATALOGUE: Final[Mapping[str, type[EventData]]] = {
    model.type: model
    for model in (
        MessageAnswered,
        HandoffRequested,
        ApprovalNeeded,
        ApprovalDecided,
        SessionOpened,
        SessionClosed,
        SessionTakenOver,
        SessionGivenBack,
        FactLearned,
        DealStageChanged,
        WorkflowEnded,
        RunFailed,
    )
}


def build_schema_name(kind: str, version: int) -> str:
    """Return the ``dataschema`` of a type and version."""
    return f"urn:ventros-agents:event:{kind}:{version}"


def build_envelope(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored event (a row of ``outbox.events``) as its receivers see it, in JSON."""
    envelope = {
        "specversion": SPEC_VERSION,
        "id": str(row["id"]),
        "source": SOURCE,
        "type": row["type"],
        "subject": row["thread_id"],
        "time": row["at"].astimezone(UTC).isoformat(),
        "datacontenttype": "application/json",
        "dataschema": build_schema_name(row["type"], row["version"]),
        "tenant": row["tenant"],
        "partitionkey": row["thread_id"],
        "sequence": str(row["sequence"]).zfill(_SEQUENCE_DIGITS),
        "data": row["data"],
    }
    if not row["thread_id"]:
        # CloudEvents allows no empty attributes. Events of no thread have no order among each other.
        for name in ("subject", "partitionkey"):
            del envelope[name]
    return envelope
