"""Look up what the customer ordered."""

from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from tools.crm.client import CrmClient
from tools.execution import CallContext

# What a model reads at once; the newest come first.
MAX_ORDERS = 10


def get_orders(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("get_orders", parse_docstring=True)
    async def look_up(context: Annotated[CallContext, InjectedToolArg]) -> list[dict[str, Any]]:
        """Look up the orders of the customer, newest first: where each delivery is and when it is expected.

        Use it when a shipment is late, missing or asked for.

        Args:
            context: Given by the run.
        """
        found = await crm.orders(context.contact_id)
        return [order.model_dump(exclude={"contact_id"}, exclude_none=True) for order in found[:MAX_ORDERS]]

    return look_up
