"""Input, output and state of a sale, and what a model reads about the deal."""

from typing import Annotated, Any, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from core.customer_text import SendableText
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
    "needs_model",
    "crm_refused",
    "crm_unavailable",
]


PersonNeeded: TypeAlias = Literal["no", "customer_asks", "legal", "security", "beyond_product"]

# The CRM's limits of texts, lists and values.
SHORT_CHARACTERS = 2_000
LONG_CHARACTERS = 20_000
MAX_LISTED = 50
MAX_VALUE = 1e9


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
            description="done: its evidence is there; skipped: it was there already, or is not needed; "
            "repeated: it was there, and this run worked on it again; open: something is missing"
        ),
    ]
    summary: Annotated[str, Field(description="The result of this run's work, or why the status is this")]


class FollowUpPlan(TypedDict):
    """A follow-up to schedule with the customer."""

    due_at: Annotated[str, Field(description="ISO 8601 with offset")]
    subject: str
    note: str


class HandOver(TypedDict):
    """A conversation to hand over to a person."""

    team: str
    reason: str
    summary: str


class Writes(TypedDict):
    """What a run is to write to the CRM; parts that are written are removed."""

    turn: Annotated[str, Field(description="The run it is from; the idempotency keys are derived from it")]
    stage_before: Annotated[Stage, Field(description="The deal's stage when the changes were made")]
    opportunity: Annotated[
        dict[str, Any] | None, Field(description="New values of the opportunity's fields; null: none")
    ]
    follow_up: FollowUpPlan | None
    hand_over: HandOver | None


class PendingOffer(TypedDict):
    """An offer that waits for a person's approval; ``offer`` is a :class:`nodes.sales.changes.Offer`."""

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
    message: StoredText
    # These last over the runs of the thread. ``unread`` is what the customer said and no run has read into
    # the deal yet; ``unsaved`` is what the CRM has not accepted yet; ``achieved`` are the stages that runs
    # worked on.
    deal: Deal
    unread: StoredText
    unsaved: Writes | None
    achieved: list[StageName]
    # The CRM's opportunity as last read or written, and the contact.
    opportunity: dict[str, Any] | None
    contact: ContactProfile | None
    # The rest is about the latest run. ``stages_before`` are the stages when it began, ``refusals`` what the
    # CRM rejected, ``notes`` what a person should know.
    turn: str
    today: str
    stages_before: list[StageView]
    subtasks: list[Subtask]
    pending_offer: PendingOffer | None
    refusals: list[str]
    notes: list[str]
    # What the customer said in this run, and is told; and the hand-over that was recorded.
    said: StoredText
    response: StoredText
    handed_over: HandOver | None
    closed: bool
    deal_value: float
    stage: Stage | None
    next_action: StoredText
    qualification: dict[str, str | None]
    stages: list[StageView]
    success: bool
    reason: Reason | None


class SalesOutput(ContextOutput):
    """The deal after this run, as the CRM holds it."""

    response: Annotated[
        str,
        Field(
            description="What to tell the customer; empty where they said nothing new, or nothing was done"
        ),
    ]
    handed_over: Annotated[
        HandOver | None, Field(description="The hand-over that this run recorded in the CRM; null: none")
    ]

    closed: Annotated[bool, Field(description="Whether the deal is closed; stage says whether it was won")]
    deal_value: Annotated[float, Field(description="The opportunity's value, in its currency; never guessed")]
    stage: Annotated[Stage | None, Field(description="The deal's stage; null when the CRM could not be read")]
    next_action: Annotated[str, Field(description="What to do next; empty when nothing is left to do")]
    qualification: Annotated[
        dict[str, str | None], Field(description="budget, authority, need, timeline; null: not known yet")
    ]
    stages: Annotated[list[StageView], Field(description="Every stage in order, with its status")]
    unsaved: Annotated[
        Writes | None,
        Field(
            description="What could not be written to the CRM; the thread's next run writes it. Null: nothing"
        ),
    ]
    success: Annotated[bool, Field(description="Whether the run did what the deal needs now")]
    reason: Annotated[Reason | None, Field(description="Why success is false; null otherwise")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


class ObjectionReading(BaseModel):
    """A reason against buying."""

    text: str = Field(description="The objection; of one that is in the deal already, its exact words")
    answer: str = Field("", description="What answers it; empty while nothing does")


class DealReading(BaseModel):
    """What a model reads as new about the deal. Empty means not known, or as the deal already has it."""

    # First, so that a model reasons before it decides.
    why: str = Field(description="What the results and the customer's words say about the deal, in brief")
    budget: str = Field("", description="The customer's budget")
    authority: str = Field("", description="Who decides at the customer's")
    need: str = Field("", description="What the customer needs it for")
    timeline: str = Field("", description="By when the customer wants it")
    needs: list[str] = Field([], description="Needs that are not in the deal yet, each in a few words")
    solution: str = Field("", description="What the company would deliver for these needs")
    objections: list[ObjectionReading] = Field([], description="Objections that are new, or newly answered")
    proposal: SendableText = Field("", description="The whole proposal, with amounts such as USD 10,800")
    terms: SendableText = Field(
        "", description="The whole terms beside the proposal, with amounts such as USD 10,800"
    )
    value: Annotated[float, Field(ge=0, le=MAX_VALUE)] | None = Field(
        None, description="The deal's new worth as the proposal or the terms name it; null: as it is"
    )
    discount_percent: float = Field(
        0, ge=0, le=100, description="What the terms take off the price, in percent; 0: nothing"
    )
    agreement: str = Field(
        "", description="The sentence in which the customer agrees to the proposal, copied; empty: none"
    )
    refusal: str = Field(
        "", description="The sentence in which the customer declines for good, copied; empty: none"
    )
    not_ready: bool = Field(default=False, description="Whether the customer asks for time before going on")
    follow_up_on: str = Field("", description="Day to come back to the customer, as YYYY-MM-DD; empty: none")
    needs_person: PersonNeeded = Field("no", description="Why a person must take over; no: nobody needs to")
    next_action: str = Field("", description="What the company does next in this deal, in one sentence")
