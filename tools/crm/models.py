"""What the CRM answers, as far as the tools read it. Unknown fields are let through unread."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Severity: TypeAlias = Literal["low", "medium", "high", "critical"]
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

Size = Annotated[int, Field(ge=1, le=10_000_000)]


def _to_cents(amount: float) -> float:
    return round(amount, 2)


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_to_cents)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class CustomerProfile(_Answer):
    """What is known of a customer; ``None`` is not known yet, and in a change: as it is."""

    company_size: Size | None = None
    industry: str | None = None
    use_case: str | None = None
    team_size: Size | None = None


class Contact(_Answer):
    """A person the company talks to."""

    id: str
    name: str
    email: str | None = None
    company: str | None = None
    language: str | None = None
    profile: CustomerProfile = CustomerProfile()


class Usage(_Answer):
    """How much of a limit is used; ``limit`` is ``None`` where there is none."""

    used: int
    limit: int | None = None


class Subscription(_Answer):
    """A contact's plan and product version."""

    plan: str
    product_version: str
    status: str | None = None
    usage: dict[str, Usage] = {}


class Ticket(_Answer):
    """A support ticket."""

    id: str
    title: str
    description: str | None = None
    status: str | None = None
    severity: str | None = None
    resolution: str | None = None
    created_at: str | None = None


class Tickets(_Answer):
    """Tickets, newest first."""

    tickets: list[Ticket]


class Article(_Answer):
    """A knowledge-base article."""

    id: str
    title: str
    body: str


class Articles(_Answer):
    """Articles, best match first."""

    articles: list[Article]


class Component(_Answer):
    """A part of the platform and how it is."""

    name: str
    status: str


class Incident(_Answer):
    """A disturbance, past or present."""

    title: str
    status: str
    component: str | None = None
    summary: str | None = None
    started_at: str | None = None
    resolved_at: str | None = None


class PlatformStatus(_Answer):
    """The platform as a whole."""

    status: str
    components: list[Component] = []
    incidents: list[Incident] = []


class Created(_Answer):
    """What a POST made."""

    id: str


class Qualification(_Answer):
    """Budget, authority, need and timeline (BANT), in words; ``None`` is not known yet."""

    budget: str | None = None
    authority: str | None = None
    need: str | None = None
    timeline: str | None = None


class Objection(_Answer):
    """What speaks against buying, and what was said to it; ``answer`` is ``None`` while it is open."""

    text: str
    answer: str | None = None


class Opportunity(_Answer):
    """What a contact may buy, and how far that is; ``version`` grows with each change."""

    id: str
    contact_id: str
    title: str
    stage: Stage
    value: Amount
    currency: str
    qualification: Qualification = Qualification()
    needs: list[str] = []
    solution: str | None = None
    objections: list[Objection] = []
    proposal: str | None = None
    terms: str | None = None
    next_action: str | None = None
    close_reason: str | None = None
    created_at: str
    updated_at: str
    version: int


class Opportunities(_Answer):
    """Opportunities, newest first."""

    opportunities: list[Opportunity]


class OpportunityChanges(BaseModel):
    """What is to change of an opportunity; ``None`` is as it is, also inside ``qualification``.

    A list takes the place of the one that is there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str | None = None
    stage: Stage | None = None
    value: Amount | None = None
    currency: str | None = None
    qualification: Qualification | None = None
    needs: list[str] | None = None
    solution: str | None = None
    objections: list[Objection] | None = None
    proposal: str | None = None
    terms: str | None = None
    next_action: str | None = None
    close_reason: str | None = None


class FollowUp(_Answer):
    """Something to come back to with a contact; ``due_at`` is ISO 8601 with offset."""

    id: str
    contact_id: str
    due_at: str
    subject: str
    note: str
    opportunity_id: str | None = None
    created_at: str


class FollowUps(_Answer):
    """Follow-ups, newest first."""

    follow_ups: list[FollowUp]


class Handoff(_Answer):
    """A conversation that the people of a team take over."""

    id: str
    contact_id: str
    team: str
    reason: str
    summary: str
    created_at: str


class Handoffs(_Answer):
    """Handoffs, newest first."""

    handoffs: list[Handoff]


class Order(_Answer):
    """Something a contact ordered, and where it is."""

    id: str
    contact_id: str
    item: str
    status: Literal["processing", "shipped", "delivered", "delayed", "cancelled"]
    placed_at: str
    expected_at: str | None = None
    tracking: str | None = None


class Orders(_Answer):
    """Orders, newest first."""

    orders: list[Order]


class Invoice(_Answer):
    """What a contact owes or paid."""

    id: str
    contact_id: str
    number: str
    status: Literal["open", "paid", "overdue", "refunded"]
    amount: Amount
    currency: str
    issued_at: str
    due_at: str
    paid_at: str | None = None


class Invoices(_Answer):
    """Invoices, newest first."""

    invoices: list[Invoice]
