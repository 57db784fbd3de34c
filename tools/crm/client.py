"""The client of the CRM's HTTP API: one method per call."""

import asyncio
from collections.abc import Awaitable
from datetime import datetime
from typing import TypeVar

import httpx

from core.circuit import CircuitState
from core.customer_text import CustomerText
from core.effects import Effects
from core.errors import CrmRefused
from core.settings import CrmSettings
from tools.crm.connection import CrmConnection, quote_segment
from tools.crm.models import (
    ArticlePage,
    Articles,
    Contact,
    ContactOverview,
    Created,
    CustomerProfile,
    FollowUp,
    FollowUps,
    Handoff,
    Handoffs,
    Invoice,
    Invoices,
    Opportunities,
    Opportunity,
    OpportunityChanges,
    Order,
    Orders,
    PlatformStatus,
    Severity,
    Subscription,
    Tickets,
)

T = TypeVar("T")

# How the CRM's records name us.
SOURCE = "ventros-agents"


class CrmClient:
    """The CRM calls that the tools and the graphs make.

    Every write takes an idempotency key: the CRM executes it once per key. Every method raises the errors of
    :class:`CrmConnection`.

    Args:
        http: Client with base address and key set; the caller closes it.
        settings: Attempts, and the time limits of one request and of one that sends a message.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
        effects: Records every write before and after it; ``None`` records nothing.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        settings: CrmSettings,
        *,
        first_pause: float = 0.2,
        effects: Effects | None = None,
    ) -> None:
        self._crm = CrmConnection(http, settings, first_pause=first_pause, effects=effects)
        self._message_timeout = settings.message_timeout_seconds

    @property
    def circuit(self) -> CircuitState:
        """Whether the CRM is called, or rests after it was unavailable."""
        return self._crm.circuit.state

    async def get_contact(self, contact_id: str) -> Contact:
        """Return the contact."""
        return await self._crm.get(_contact_path(contact_id), Contact)

    async def get_contact_overview(self, contact_id: str) -> ContactOverview:
        """Return the contact with subscription and tickets, in one request if the CRM knows ``include``."""
        params = {"include": "subscription,tickets"}
        found = await self._crm.get(_contact_path(contact_id), ContactOverview, params=params)
        if {"subscription", "tickets"} <= found.model_fields_set:
            return found
        subscription, listed = await asyncio.gather(
            _read_if_any(self.get_subscription(contact_id)), _read_if_any(self.list_tickets(contact_id))
        )
        return found.model_copy(
            update={"subscription": subscription, "tickets": listed.tickets if listed else []}
        )

    async def get_subscription(self, contact_id: str) -> Subscription:
        """Return the contact's plan, version and usage."""
        return await self._crm.get(f"{_contact_path(contact_id)}/subscription", Subscription)

    async def list_tickets(self, contact_id: str) -> Tickets:
        """Return the contact's support tickets, newest first."""
        return await self._crm.get(f"{_contact_path(contact_id)}/tickets", Tickets)

    async def search_knowledge_base(self, query: str) -> Articles:
        """Return the articles that match, best first."""
        return await self._crm.get("/knowledge-base/search", Articles, params={"q": query})

    async def list_articles(self, *, updated_since: datetime | None = None, after: str = "") -> ArticlePage:
        """Return a page of all articles, or of those that changed at a time or later.

        Args:
            updated_since: The time; ``None``: all articles.
            after: The previous page's ``next``; empty: the first page.
        """
        params = {"after": after} if after else {}
        if updated_since:
            params["updated_since"] = updated_since.isoformat()
        return await self._crm.get("/knowledge-base/articles", ArticlePage, params=params)

    async def get_status(self) -> PlatformStatus:
        """Return the status of the platform, with incidents."""
        return await self._crm.get("/status", PlatformStatus)

    async def create_engineering_ticket(
        self, contact_id: str, *, title: str, description: str, severity: Severity, key: str
    ) -> Created:
        """Report a defect to engineering."""
        body = {
            "contact_id": contact_id,
            "title": title,
            "description": description,
            "severity": severity,
            "source": SOURCE,
        }
        return await self._crm.write(
            "create_engineering_ticket", "POST", "/engineering-tickets", body, Created, key=key
        )

    async def send_message(
        self, contact_id: str, *, text: CustomerText, key: str, author: str = ""
    ) -> Created:
        """Send the contact a message, an agent's or that of the person who is named as its author."""
        body = {"contact_id": contact_id, "text": text.text, "from_me": True, "source": SOURCE}
        if author:
            body["author"] = author
        return await self._crm.write(
            "send_message",
            "POST",
            "/messages",
            body,
            Created,
            key=key,
            timeout=self._message_timeout,
        )

    async def update_profile(self, contact_id: str, changes: CustomerProfile, *, key: str) -> Contact:
        """Record what was learned about a customer; a field that is ``None`` stays as it is."""
        body = changes.model_dump(exclude_none=True)
        return await self._crm.write(
            "update_profile", "PATCH", f"{_contact_path(contact_id)}/profile", body, Contact, key=key
        )

    async def list_opportunities(self, contact_id: str) -> list[Opportunity]:
        """Return the contact's opportunities, newest first."""
        return (
            await self._crm.get(f"{_contact_path(contact_id)}/opportunities", Opportunities)
        ).opportunities

    async def get_opportunity(self, contact_id: str, opportunity_id: str) -> Opportunity:
        """Return an opportunity of the contact."""
        return await self._crm.get(_opportunity_path(contact_id, opportunity_id), Opportunity)

    async def update_opportunity(
        self, contact_id: str, opportunity_id: str, changes: OpportunityChanges, *, key: str
    ) -> Opportunity:
        """Change an opportunity; a field that is ``None`` stays as it is.

        The CRM refuses to change a closed opportunity, with 409.
        """
        body = changes.model_dump(exclude_none=True)
        return await self._crm.write(
            "update_opportunity",
            "PATCH",
            _opportunity_path(contact_id, opportunity_id),
            body,
            Opportunity,
            key=key,
        )

    async def list_orders(self, contact_id: str) -> list[Order]:
        """Return the contact's orders, newest first."""
        return (await self._crm.get(f"{_contact_path(contact_id)}/orders", Orders)).orders

    async def list_invoices(self, contact_id: str) -> list[Invoice]:
        """Return the contact's invoices, newest first."""
        return (await self._crm.get(f"{_contact_path(contact_id)}/invoices", Invoices)).invoices

    async def schedule_follow_up(
        self,
        contact_id: str,
        *,
        due_at: str,
        subject: str,
        note: str,
        opportunity_id: str | None = None,
        key: str,
    ) -> FollowUp:
        """Schedule a follow-up at ``due_at`` (ISO 8601 with offset)."""
        body = {
            "due_at": due_at,
            "subject": subject,
            "note": note,
            "opportunity_id": opportunity_id,
            "source": SOURCE,
        }
        return await self._crm.write(
            "schedule_follow_up", "POST", f"{_contact_path(contact_id)}/follow-ups", body, FollowUp, key=key
        )

    async def list_follow_ups(self, contact_id: str) -> list[FollowUp]:
        """Return the follow-ups scheduled with the contact, newest first."""
        return (await self._crm.get(f"{_contact_path(contact_id)}/follow-ups", FollowUps)).follow_ups

    async def hand_over(self, contact_id: str, *, team: str, reason: str, summary: str, key: str) -> Handoff:
        """Hand the contact's conversation over to the people of a team, if the CRM works again by now."""
        body = {"team": team, "reason": reason, "summary": summary, "source": SOURCE}
        path = f"{_contact_path(contact_id)}/handoffs"
        return await self._crm.write("hand_over", "POST", path, body, Handoff, key=key, is_essential=True)

    async def list_handoffs(self, contact_id: str) -> list[Handoff]:
        """Return the handoffs of the contact's conversations, newest first."""
        return (await self._crm.get(f"{_contact_path(contact_id)}/handoffs", Handoffs)).handoffs


def create_http_client(
    settings: CrmSettings, base_url: str, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """Return the pooled HTTP client, with address, key and time limit set; the caller closes it.

    Args:
        settings: Key and time limit.
        base_url: The address that ``/api/v1`` is under.
        transport: Replaces the network, for a CRM in the same process.
    """
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"Authorization": f"Bearer {settings.api_key.get_secret_value()}"},
        timeout=settings.timeout_seconds,
        transport=transport,
    )


async def _read_if_any(read: Awaitable[T]) -> T | None:
    """Return what the CRM tells, or ``None`` where it refuses: the contact has no such record."""
    try:
        return await read
    except CrmRefused:
        return None


def _contact_path(contact_id: str) -> str:
    return f"/contacts/{quote_segment('contact', contact_id)}"


def _opportunity_path(contact_id: str, opportunity_id: str) -> str:
    return f"{_contact_path(contact_id)}/opportunities/{quote_segment('opportunity', opportunity_id)}"
