"""The CRM API's client."""

import httpx

from core.effects import Effects
from core.settings import CrmSettings
from tools.crm.connection import CrmConnection, segment
from tools.crm.models import (
    Articles,
    Contact,
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

# Who we say we are in the CRM's records.
SOURCE = "ventros-agents"


class CrmClient:
    """The calls the tools and the graphs make.

    Every write takes an idempotency key, under which the CRM does the thing once. Every method raises what
    :class:`CrmConnection` raises.

    Args:
        http: Client with base address and key set; not owned.
        settings: Attempts, and the time limits of one request and of one that sends a message.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
        effects: Where every write is recorded before and after; ``None``: nowhere.
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

    async def contact(self, contact_id: str) -> Contact:
        """The contact."""
        return await self._crm.get(_contact(contact_id), Contact)

    async def subscription(self, contact_id: str) -> Subscription:
        """The contact's plan, version and usage."""
        return await self._crm.get(f"{_contact(contact_id)}/subscription", Subscription)

    async def tickets(self, contact_id: str) -> Tickets:
        """The contact's support tickets, newest first."""
        return await self._crm.get(f"{_contact(contact_id)}/tickets", Tickets)

    async def search_knowledge_base(self, query: str) -> Articles:
        """Articles that match, best first."""
        return await self._crm.get("/knowledge-base/search", Articles, params={"q": query})

    async def status(self) -> PlatformStatus:
        """How the platform is, with incidents."""
        return await self._crm.get("/status", PlatformStatus)

    async def create_engineering_ticket(
        self, contact_id: str, *, title: str, description: str, severity: Severity, idempotency_key: str
    ) -> Created:
        """Report a defect to engineering, once per key."""
        body = {
            "contact_id": contact_id,
            "title": title,
            "description": description,
            "severity": severity,
            "source": SOURCE,
        }
        return await self._crm.write(
            "create_engineering_ticket", "POST", "/engineering-tickets", body, Created, key=idempotency_key
        )

    async def send_message(self, contact_id: str, *, text: str, idempotency_key: str) -> Created:
        """Send the contact a message, once per key."""
        body = {"contact_id": contact_id, "text": text, "from_me": True, "source": SOURCE}
        return await self._crm.write(
            "send_message",
            "POST",
            "/messages",
            body,
            Created,
            key=idempotency_key,
            timeout=self._message_timeout,
        )

    async def update_profile(self, contact_id: str, changes: CustomerProfile, *, key: str) -> Contact:
        """Keep what was learned of a customer, once per key; what is ``None`` stays as it is."""
        body = changes.model_dump(exclude_none=True)
        return await self._crm.write(
            "update_profile", "PATCH", f"{_contact(contact_id)}/profile", body, Contact, key=key
        )

    async def opportunities(self, contact_id: str) -> list[Opportunity]:
        """What the contact may buy, newest first."""
        found = await self._crm.get(f"{_contact(contact_id)}/opportunities", Opportunities)
        return found.opportunities

    async def opportunity(self, contact_id: str, opportunity_id: str) -> Opportunity:
        """An opportunity of the contact."""
        return await self._crm.get(_opportunity(contact_id, opportunity_id), Opportunity)

    async def update_opportunity(
        self, contact_id: str, opportunity_id: str, changes: OpportunityChanges, *, key: str
    ) -> Opportunity:
        """Change an opportunity, once per key; what is ``None`` stays as it is.

        One that is closed takes no changes: the CRM refuses them with 409.
        """
        body = changes.model_dump(exclude_none=True)
        return await self._crm.write(
            "update_opportunity",
            "PATCH",
            _opportunity(contact_id, opportunity_id),
            body,
            Opportunity,
            key=key,
        )

    async def orders(self, contact_id: str) -> list[Order]:
        """What the contact ordered, newest first."""
        return (await self._crm.get(f"{_contact(contact_id)}/orders", Orders)).orders

    async def invoices(self, contact_id: str) -> list[Invoice]:
        """What the contact owes or paid, newest first."""
        return (await self._crm.get(f"{_contact(contact_id)}/invoices", Invoices)).invoices

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
        """Plan to come back to something at ``due_at`` (ISO 8601 with offset), once per key."""
        body = {
            "due_at": due_at,
            "subject": subject,
            "note": note,
            "opportunity_id": opportunity_id,
            "source": SOURCE,
        }
        return await self._crm.write(
            "schedule_follow_up", "POST", f"{_contact(contact_id)}/follow-ups", body, FollowUp, key=key
        )

    async def follow_ups(self, contact_id: str) -> list[FollowUp]:
        """The follow-ups planned with the contact, newest first."""
        return (await self._crm.get(f"{_contact(contact_id)}/follow-ups", FollowUps)).follow_ups

    async def hand_over(self, contact_id: str, *, team: str, reason: str, summary: str, key: str) -> Handoff:
        """Hand the contact's conversation to the people of a team, once per key."""
        body = {"team": team, "reason": reason, "summary": summary, "source": SOURCE}
        return await self._crm.write(
            "hand_over", "POST", f"{_contact(contact_id)}/handoffs", body, Handoff, key=key
        )

    async def handoffs(self, contact_id: str) -> list[Handoff]:
        """What was handed to people of the contact's conversations, newest first."""
        return (await self._crm.get(f"{_contact(contact_id)}/handoffs", Handoffs)).handoffs


def crm_http_client(
    settings: CrmSettings, base_url: str, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """The pooled HTTP client, with address, key and time limit set; the caller closes it.

    Args:
        settings: Key and time limit.
        base_url: Where ``/api/v1`` is.
        transport: Stands instead of the network, for a CRM in the same process.
    """
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"Authorization": f"Bearer {settings.api_key.get_secret_value()}"},
        timeout=settings.timeout_seconds,
        transport=transport,
    )


def _contact(contact_id: str) -> str:
    return f"/contacts/{segment('contact', contact_id)}"


def _opportunity(contact_id: str, opportunity_id: str) -> str:
    return f"{_contact(contact_id)}/opportunities/{segment('opportunity', opportunity_id)}"
