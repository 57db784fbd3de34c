"""Request and response bodies of contacts, subscriptions, tickets, articles, status and messages."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Language: TypeAlias = Literal["en", "pt"]
Severity: TypeAlias = Literal["low", "medium", "high", "critical"]
ComponentStatus: TypeAlias = Literal["operational", "degraded", "outage"]


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character NUL")
    return text


def _text(max_length: int) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=max_length)


Storable = AfterValidator(_without_nul)  # Postgres cannot store NUL in text.
Title = Annotated[str, _text(200), Storable]
ShortText = Annotated[str, _text(2_000), Storable]
LongText = Annotated[str, _text(20_000), Storable]
Source = Annotated[str, _text(100), Storable, Field(description="Who or what wrote it, e.g. an agent's name")]
Size = Annotated[int, Field(ge=1, le=10_000_000)]


class Profile(BaseModel):
    """What is known about a customer; null means not known yet."""

    company_size: Size | None = Field(None, description="People in the company")
    industry: Title | None = None
    use_case: ShortText | None = Field(None, description="What they use the product for")
    team_size: Size | None = Field(None, description="People who would use the product")


class Contact(BaseModel):
    """A person at a customer."""

    id: UUID
    name: str
    email: str
    phone: str | None
    company: str
    role: str
    language: Language
    timezone: str = Field(description="IANA name")
    created_at: datetime
    profile: Profile


class Usage(BaseModel):
    """How much of a limit of the plan is used."""

    used: int
    limit: int | None = Field(description="null means unlimited")


class Subscription(BaseModel):
    """What the contact's company pays for and how much of it is used."""

    contact_id: UUID
    plan: Literal["Free", "Starter", "Pro", "Enterprise"]
    product_version: str
    status: Literal["active", "trialing", "past_due", "cancelled"]
    seats: int
    usage: dict[str, Usage]
    monthly_amount: Decimal
    currency: str = Field(description="ISO 4217 code")
    billing_cycle: Literal["none", "monthly", "yearly"]
    started_on: date
    renews_on: date | None


class Ticket(BaseModel):
    """A support ticket."""

    id: str
    title: str
    description: str
    status: Literal["open", "pending", "resolved"]
    severity: Severity
    resolution: str | None
    created_at: datetime
    resolved_at: datetime | None


class Tickets(BaseModel):
    """Support tickets, newest first."""

    tickets: list[Ticket]


class ContactOverview(Contact):
    """A contact with what was asked to be included."""

    subscription: Subscription | None = None
    tickets: list[Ticket] = []


class Article(BaseModel):
    """A knowledge-base article and how well it fits the query."""

    id: str
    title: str
    body: str
    tags: list[str]
    language: Language
    score: float = Field(description="Only comparable within one search")
    updated_at: datetime


class Articles(BaseModel):
    """Knowledge-base articles, best first."""

    articles: list[Article]


class ArticleRevision(BaseModel):
    """A knowledge-base article as it is now."""

    id: str
    title: str
    body: str
    tags: list[str]
    language: Language
    updated_at: datetime = Field(description="Grows with every change of the article")


class ArticleRevisions(BaseModel):
    """A page of articles by id, for whoever keeps a copy of the knowledge base."""

    articles: list[ArticleRevision]
    total: int = Field(description="Articles of the whole knowledge base, whatever was asked for")
    next: str | None = Field(description="Give it as after= for the next page; null: this is the last page")


class Component(BaseModel):
    """A part of the product on the status page."""

    name: str
    status: ComponentStatus
    since: datetime


class Incident(BaseModel):
    """A disruption of a part of the product."""

    id: str
    title: str
    component: str
    status: Literal["investigating", "identified", "monitoring", "resolved"]
    started_at: datetime
    resolved_at: datetime | None
    summary: str


class Status(BaseModel):
    """The status page; ``status`` is that of the worst component."""

    status: ComponentStatus
    components: list[Component]
    incidents: list[Incident]


class NewEngineeringTicket(BaseModel):
    """A problem to report to engineering, found while helping a contact."""

    model_config = ConfigDict(extra="forbid")

    contact_id: UUID
    title: Title
    description: LongText
    severity: Severity
    source: Source


class EngineeringTicket(NewEngineeringTicket):
    """A problem that was reported to engineering."""

    id: str
    status: str
    created_at: datetime


class EngineeringTickets(BaseModel):
    """Engineering tickets, newest first."""

    engineering_tickets: list[EngineeringTicket]


class NewMessage(BaseModel):
    """A message to a contact (``from_me``) or from one; ``author``: the person who wrote it, not an agent."""

    model_config = ConfigDict(extra="forbid")

    contact_id: UUID
    text: LongText
    from_me: bool
    source: Source
    author: str = Field("", max_length=200)


class Message(NewMessage):
    """A stored message to a contact (``from_me``) or from one."""

    id: UUID
    created_at: datetime


class Messages(BaseModel):
    """Messages, newest first."""

    messages: list[Message]
