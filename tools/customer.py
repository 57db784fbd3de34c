"""Tools that look up a customer's records in the CRM."""

from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

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
        """Look up who writes: name, company, language, plan, limits, trial end and renewal date.

        Use it to address the person rightly, for questions about their plan, and to advise what fits them.

        Args:
            context: Given by the run.
        """
        contact = await crm.get_contact_overview(context.contact_id)
        await relations.record(context.scope, build_contact_edges(contact))
        found = contact.model_dump(exclude={"id", "tickets"}, exclude_none=True)
        return {"subscription": None, **found}

    return get_contact


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
