"""Tools that look up a customer's records in the CRM."""

from http import HTTPStatus
from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from core.errors import CrmRefused
from core.memory import Memory
from tools.crm.client import CrmClient
from tools.execution import CallContext
from tools.relations import RelationRecorder, build_contact_edges

# The newest records that a model is shown of each kind.
MAX_ORDERS = 10
MAX_INVOICES = 10
MAX_OPPORTUNITIES = 5


def get_contact_tool(crm: CrmClient, memory: Memory) -> BaseTool:
    """Return the tool; it also records in memory where the contact works."""
    relations = RelationRecorder(memory)

    @tool(parse_docstring=True)
    async def get_contact(context: Annotated[CallContext, InjectedToolArg]) -> dict[str, Any]:
        """Look up who writes: name, company, language, and what is known of their size and industry.

        Use it to address the person rightly and to advise what fits their company.

        Args:
            context: Given by the run.
        """
        contact = await crm.get_contact(context.contact_id)
        await relations.record(context.scope, build_contact_edges(contact))
        return {
            **contact.model_dump(exclude={"id"}, exclude_none=True),
            "subscription": await _get_subscription(crm, context.contact_id),
        }

    return get_contact


async def _get_subscription(crm: CrmClient, contact_id: str) -> dict[str, Any] | None:
    try:
        return (await crm.get_subscription(contact_id)).model_dump(exclude_none=True)
    except CrmRefused as refusal:
        if refusal.crm_status != HTTPStatus.NOT_FOUND:
            raise
        return None


def get_product_version_tool(crm: CrmClient) -> BaseTool:
    """Return the tool over this CRM."""

    @tool(parse_docstring=True)
    async def get_product_version(context: Annotated[CallContext, InjectedToolArg]) -> dict[str, Any]:
        """Look up the customer's plan, product version and how much of each limit is used.

        Use it to diagnose a problem that may depend on the version, the plan or the number of contacts.

        Args:
            context: Given by the run.
        """
        subscription = await crm.get_subscription(context.contact_id)
        return subscription.model_dump(exclude_none=True)

    return get_product_version


def get_orders_tool(crm: CrmClient) -> BaseTool:
    """Return the tool over this CRM."""

    @tool(parse_docstring=True)
    async def get_orders(context: Annotated[CallContext, InjectedToolArg]) -> list[dict[str, Any]]:
        """Look up the orders of the customer, newest first: where each delivery is and when it is expected.

        Use it when a shipment is late, missing or asked for.

        Args:
            context: Given by the run.
        """
        orders = await crm.list_orders(context.contact_id)
        return [order.model_dump(exclude={"contact_id"}, exclude_none=True) for order in orders[:MAX_ORDERS]]

    return get_orders


def get_invoices_tool(crm: CrmClient) -> BaseTool:
    """Return the tool over this CRM."""

    @tool(parse_docstring=True)
    async def get_invoices(context: Annotated[CallContext, InjectedToolArg]) -> list[dict[str, Any]]:
        """Look up the invoices of the customer, newest first: amounts, due dates, paid, overdue or refunded.

        Use it for questions about a charge, a payment or a bill.

        Args:
            context: Given by the run.
        """
        invoices = await crm.list_invoices(context.contact_id)
        return [
            invoice.model_dump(exclude={"id", "contact_id"}, exclude_none=True)
            for invoice in invoices[:MAX_INVOICES]
        ]

    return get_invoices


def get_opportunities_tool(crm: CrmClient) -> BaseTool:
    """Return the tool over this CRM."""

    @tool(parse_docstring=True)
    async def get_opportunities(context: Annotated[CallContext, InjectedToolArg]) -> list[dict[str, Any]]:
        """Look up the sales opportunities of the customer: stage, budget, needs, objections and proposal.

        Use it before you speak of buying, prices or a renewal.

        Args:
            context: Given by the run.
        """
        opportunities = await crm.list_opportunities(context.contact_id)
        return [
            opportunity.model_dump(exclude={"contact_id", "version"}, exclude_none=True)
            for opportunity in opportunities[:MAX_OPPORTUNITIES]
        ]

    return get_opportunities
