"""Look up what the customer owes or paid."""

from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from tools.crm.client import CrmClient
from tools.execution import CallContext

# What a model reads at once; the newest come first.
MAX_INVOICES = 10


def get_invoices(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("get_invoices", parse_docstring=True)
    async def look_up(context: Annotated[CallContext, InjectedToolArg]) -> list[dict[str, Any]]:
        """Look up the invoices of the customer, newest first: amounts, due dates, paid, overdue or refunded.

        Use it for questions about a charge, a payment or a bill.

        Args:
            context: Given by the run.
        """
        found = await crm.invoices(context.contact_id)
        return [
            invoice.model_dump(exclude={"id", "contact_id"}, exclude_none=True)
            for invoice in found[:MAX_INVOICES]
        ]

    return look_up
