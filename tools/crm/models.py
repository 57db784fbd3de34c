"""The CRM's responses, as far as the tools and graphs read them; unknown fields are ignored."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

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


def _round_to_cents(amount: float) -> float:
    return round(amount, 2)


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_round_to_cents)]


class _CrmModel(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class CustomerProfile(_CrmModel):
    """What is known about a customer; ``None`` means not known yet or, in an update, unchanged."""

    company_size: Size | None = None
    industry: str | None = None
    use_case: str | None = None
    team_size: Size | None = None


class Contact(_CrmModel):
    """A person the company talks to."""

    id: str
    name: str
    email: str | None = None
    phone: str | None = None
    company: str | None = None
    role: str | None = None
    language: str | None = None
    timezone: Annotated[str | None, Field(description="IANA name")] = None
    profile: CustomerProfile = CustomerProfile()


class Usage(_CrmModel):
    """How much of a limit is used; ``limit`` is ``None`` when there is none."""

    used: int
    limit: int | None = None


class Subscription(_CrmModel):
    """A contact's plan and product version."""

    plan: str
    product_version: str
    status: str | None = None
    seats: int | None = None
    monthly_amount: str | None = None
    currency: str | None = None
    billing_cycle: str | None = None
    started_on: str | None = None
    renews_on: str | None = None
    usage: dict[str, Usage] = {}


class Ticket(_CrmModel):
    """A support ticket."""

    id: str
    title: str
    description: str | None = None
    status: str | None = None
    severity: str | None = None
    resolution: str | None = None
    created_at: str | None = None


class Tickets(_CrmModel):
    """Tickets, newest first."""

    tickets: list[Ticket]


class ContactOverview(Contact):
    """A contact with the subscription, ``None`` where there is none, and the tickets, newest first."""

    subscription: Subscription | None = None
    tickets: list[Ticket] = []


class Article(_CrmModel):
    """A knowledge-base article."""

    id: str
    title: str
    body: str


class ArticleRevision(Article):
    """An article as it is now; ``updated_at`` grows with each change."""

    updated_at: AwareDatetime


class ArticlePage(_CrmModel):
    """A page of articles, the number of all articles, and where the next page begins."""

    articles: list[ArticleRevision]
    total: int
    next: str | None = None


class Articles(_CrmModel):
    """Articles, best match first."""

    articles: list[Article]


class Component(_CrmModel):
    """A part of the platform and its status."""

    name: str
    status: str


class Incident(_CrmModel):
    """A disruption, past or present."""

    title: str
    status: str
    component: str | None = None
    summary: str | None = None
    started_at: str | None = None
    resolved_at: str | None = None


class PlatformStatus(_CrmModel):
    """The platform as a whole."""

    status: str
    components: list[Component] = []
    incidents: list[Incident] = []


class Created(_CrmModel):
    """The response to a POST."""

    id: str


class Qualification(_CrmModel):
    """Budget, authority, need and timeline (BANT), in words; ``None`` means not known yet."""

    budget: str | None = None
    authority: str | None = None
    need: str | None = None
    timeline: str | None = None


class Objection(_CrmModel):
    """A reason against buying and the answer to it; ``answer`` is ``None`` while it is open."""

    text: str
    answer: str | None = None


class Opportunity(_CrmModel):
    """A potential sale to a contact, and its stage; ``version`` grows with each change."""

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


class Opportunities(_CrmModel):
    """Opportunities, newest first."""

    opportunities: list[Opportunity]


class OpportunityChanges(BaseModel):
    """Changes of an opportunity; ``None`` leaves a field as it is, also inside ``qualification``.

    A list replaces the stored one.
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


class FollowUp(_CrmModel):
    """A scheduled follow-up with a contact; ``due_at`` is ISO 8601 with offset."""

    id: str
    contact_id: str
    due_at: str
    subject: str
    note: str
    opportunity_id: str | None = None
    created_at: str


class FollowUps(_CrmModel):
    """Follow-ups, newest first."""

    follow_ups: list[FollowUp]


class Handoff(_CrmModel):
    """A conversation handed over to the people of a team."""

    id: str
    contact_id: str
    team: str
    reason: str
    summary: str
    created_at: str


class Handoffs(_CrmModel):
    """Handoffs, newest first."""

    handoffs: list[Handoff]


class Order(_CrmModel):
    """Something a contact ordered, and its delivery status."""

    id: str
    contact_id: str
    item: str
    status: Literal["processing", "shipped", "delivered", "delayed", "cancelled"]
    placed_at: str
    expected_at: str | None = None
    tracking: str | None = None


class Orders(_CrmModel):
    """Orders, newest first."""

    orders: list[Order]


class Invoice(_CrmModel):
    """An amount that a contact owes or has paid."""

    id: str
    contact_id: str
    number: str
    status: Literal["open", "paid", "overdue", "refunded"]
    amount: Amount
    currency: str
    issued_at: str
    due_at: str
    paid_at: str | None = None


class Invoices(_CrmModel):
    """Invoices, newest first."""

    invoices: list[Invoice]
