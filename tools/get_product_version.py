"""Look up what the customer runs."""

from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from tools.crm.client import CrmClient
from tools.execution import CallContext


def get_product_version(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("get_product_version", parse_docstring=True)
    async def look_up(context: Annotated[CallContext, InjectedToolArg]) -> dict[str, Any]:
        """Look up the customer's plan, product version and how much of each limit is used.

        Use it to diagnose a problem that may depend on the version, the plan or the number of contacts.

        Args:
            context: Given by the run.
        """
        subscription = await crm.get_subscription(context.contact_id)
        return subscription.model_dump(exclude_none=True)

    return look_up
