"""What the CRM answers, as far as the tools read it. Unknown fields are let through unread."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Severity: TypeAlias = Literal["low", "medium", "high", "critical"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class Contact(_Answer):
    """A person the company talks to."""

    id: str
    name: str
    email: str | None = None
    company: str | None = None
    language: str | None = None


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
