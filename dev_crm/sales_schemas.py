"""Request and response bodies of profiles, opportunities, orders, invoices, follow-ups and handoffs."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dev_crm.support_schemas import LongText, Profile, ShortText, Source, Title

Stage: TypeAlias = Literal[
    "qualification",
    "needs",
    "solution",
    "objections",
    "proposal",
    "negotiation",
    "closed_won",
    "closed_lost",
]
Amount = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217 code")]
DueAt = Annotated[
    AwareDatetime,
    Field(
        ge=datetime(2000, 1, 1, tzinfo=UTC),
        le=datetime(2100, 1, 1, tzinfo=UTC),
        description="ISO 8601 with offset",
    ),
]


class ProfileChanges(Profile):
    """What was learned about a customer. Fields that are null or left out stay as they are."""

    model_config = ConfigDict(extra="forbid")


class Qualification(BaseModel):
    """What is known about budget, authority, need and timeline (BANT), in words."""

    model_config = ConfigDict(extra="forbid")

    budget: ShortText | None = None
    authority: ShortText | None = None
    need: ShortText | None = None
    timeline: ShortText | None = None


class Objection(BaseModel):
    """A reason against buying and the answer to it; ``answer`` is null while the objection is open."""

    model_config = ConfigDict(extra="forbid")

    text: ShortText
    answer: ShortText | None = None


class OpportunityChanges(BaseModel):
    """Changes of an opportunity.

    Fields that are null or left out stay as they are, also inside ``qualification``; a list replaces the
    stored one.
    """

    model_config = ConfigDict(extra="forbid")

    title: Title | None = None
    stage: Stage | None = None
    value: Amount | None = None
    currency: Currency | None = None
    qualification: Qualification | None = None
    needs: Annotated[list[ShortText], Field(max_length=50)] | None = None
    solution: LongText | None = None
    objections: Annotated[list[Objection], Field(max_length=50)] | None = None
    proposal: LongText | None = None
    terms: LongText | None = None
    next_action: ShortText | None = None
    close_reason: ShortText | None = None


class Opportunity(BaseModel):
    """A potential sale to a contact, and its stage."""

    id: str
    contact_id: UUID
    title: str
    stage: Stage
    value: Decimal
    currency: Currency
    qualification: Qualification
    needs: list[str]
    solution: str | None
    objections: list[Objection]
    proposal: str | None
    terms: str | None
    next_action: str | None
    close_reason: str | None
    created_at: datetime
    updated_at: datetime
    version: int = Field(description="Grows by one with each change")


class Opportunities(BaseModel):
    """Opportunities, newest first."""

    opportunities: list[Opportunity]


class NewFollowUp(BaseModel):
    """A follow-up to schedule with a contact."""

    model_config = ConfigDict(extra="forbid")

    due_at: DueAt
    subject: Title
    note: LongText
    opportunity_id: Annotated[str, Field(pattern="^[A-Za-z0-9-]{1,60}$")] | None = None
    source: Source


class FollowUp(NewFollowUp):
    """A stored follow-up with a contact."""

    id: UUID
    contact_id: UUID
    created_at: datetime


class FollowUps(BaseModel):
    """Follow-ups, newest first."""

    follow_ups: list[FollowUp]


class NewHandoff(BaseModel):
    """A conversation to hand over to a person."""

    model_config = ConfigDict(extra="forbid")

    team: Title
    reason: ShortText
    summary: LongText
    source: Source


class Handoff(NewHandoff):
    """A stored handoff of a conversation."""

    id: UUID
    contact_id: UUID
    created_at: datetime


class Handoffs(BaseModel):
    """Handoffs, newest first."""

    handoffs: list[Handoff]


class Order(BaseModel):
    """Something a contact ordered, and its delivery status."""

    id: str
    contact_id: UUID
    item: str
    status: Literal["processing", "shipped", "delivered", "delayed", "cancelled"]
    placed_at: datetime
    expected_at: datetime | None
    tracking: str | None


class Orders(BaseModel):
    """Orders, newest first."""

    orders: list[Order]


class Invoice(BaseModel):
    """An amount that a contact owes or has paid."""

    id: str
    contact_id: UUID
    number: str
    status: Literal["open", "paid", "overdue", "refunded"]
    amount: Decimal
    currency: Currency
    issued_at: datetime
    due_at: datetime
    paid_at: datetime | None


class Invoices(BaseModel):
    """Invoices, newest first."""

    invoices: list[Invoice]
