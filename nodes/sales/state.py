"""What a sale is given, keeps and answers."""

from typing import Annotated, Any, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from nodes.hierarchical.state import Subtask
from nodes.shared.channels import Messages, StoredText
from nodes.shared.contact import ContactProfile
from nodes.shared.context import ContextOutput, ContextState
from tools.crm.models import Stage

StageName: TypeAlias = Literal[
    "qualification", "needs", "solution", "objections", "proposal", "negotiation", "close"
]
Status: TypeAlias = Literal["done", "skipped", "repeated", "open"]
Reason: TypeAlias = Literal[
    "already_closed",
    "closed_meanwhile",
    "terms_rejected",
    "no_progress",
    "stages_failed",
    "model_refused",
    "model_unavailable",
    "model_reply_unreadable",
    "crm_refused",
    "crm_unavailable",
]


class SalesInput(BaseModel):
    """A deal, and what the customer last said."""

    contact_id: str = Field(min_length=1, max_length=200, description="The CRM contact the deal is with")
    opportunity_id: str = Field(min_length=1, max_length=200, description="The deal, one of the contact's")
    message: str = Field(
        "", max_length=8_000, description="What the customer said since the last run; empty: nothing new"
    )


class StageView(TypedDict):
    """One stage of the deal."""

    name: StageName
    status: Annotated[
        Status,
        Field(
            description="done: what it is for is there; skipped: it was there already, or is not needed; "
            "repeated: it was there, and this run worked on it again; open: something is missing"
        ),
    ]
    summary: Annotated[str, Field(description="What this run's work brought, or why the status is this")]


class FollowUpPlan(TypedDict):
    """When to come back to the customer, and with what."""

    due_at: Annotated[str, Field(description="ISO 8601 with offset")]
    subject: str
    note: str


class HandOver(TypedDict):
    """What a person is to take over."""

    team: str
    reason: str
    summary: str


class Writes(TypedDict):
    """What a run has for the CRM; what is written is taken out."""

    turn: Annotated[str, Field(description="The run it stems from; the idempotency keys are made of it")]
    stage_was: Annotated[Stage, Field(description="Where the deal stood when the changes were made")]
    opportunity: Annotated[
        dict[str, Any] | None, Field(description="New values of the opportunity's fields; null: none")
    ]
    follow_up: FollowUpPlan | None
    hand_over: HandOver | None


class OfferView(TypedDict):
    """What a person must approve before it is the deal's: see :class:`nodes.sales.changes.Offer`."""

    offer: dict[str, Any]
    reason: str
    next_action: str


class Deal(TypedDict):
    """The deal a thread is about."""

    contact_id: str
    opportunity_id: str


class SalesState(ContextState):
    """The state of a thread."""

    messages: Messages
    contact_id: StoredText
    opportunity_id: StoredText
    # As given: only ``open_deal`` sees it, so that a run without it does not get the last run's.
    message: Annotated[str, EphemeralValue]
    # Over the runs of the thread. ``unheard`` is what the customer said and no run has read into the deal
    # yet; ``unsaved`` what the CRM has not taken yet; ``achieved`` the stages that were worked on.
    deal: Deal
    unheard: StoredText
    unsaved: Writes | None
    achieved: list[StageName]
    # The CRM's opportunity as last read or written, and the contact.
    opportunity: dict[str, Any] | None
    contact: ContactProfile | None
    # Of the latest run. ``refused`` holds what the CRM would not take, ``notes`` what a person should know.
    turn: str
    today: str
    standing: list[StageView]
    subtasks: list[Subtask]
    offer: OfferView | None
    refused: list[str]
    notes: list[str]
    closed: bool
    deal_value: float
    stage: Stage | None
    next_action: StoredText
    qualification: dict[str, str | None]
    stages: list[StageView]
    success: bool
    reason: Reason | None


class SalesOutput(ContextOutput):
    """What became of the deal in this run, as the CRM holds it."""

    closed: Annotated[bool, Field(description="Whether the deal is closed; stage says if won or lost")]
    deal_value: Annotated[float, Field(description="The opportunity's value, in its currency; never guessed")]
    stage: Annotated[
        Stage | None, Field(description="Where the deal stands; null when the CRM could not be read")
    ]
    next_action: Annotated[str, Field(description="What to do next; empty when nothing is left to do")]
    qualification: Annotated[
        dict[str, str | None], Field(description="budget, authority, need, timeline; null: not known yet")
    ]
    stages: Annotated[list[StageView], Field(description="Every stage in order, and how it stands")]
    unsaved: Annotated[
        Writes | None,
        Field(description="What the CRM could not take; the thread's next run writes it. Null: nothing"),
    ]
    success: Annotated[bool, Field(description="Whether the run did what the deal asks for now")]
    reason: Annotated[Reason | None, Field(description="Why success is false; null otherwise")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]
