"""Look up what the customer may buy."""

from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from tools.crm.client import CrmClient
from tools.execution import CallContext

# What a model reads at once; the newest come first.
MAX_OPPORTUNITIES = 5


def get_opportunities(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("get_opportunities", parse_docstring=True)
    async def look_up(context: Annotated[CallContext, InjectedToolArg]) -> list[dict[str, Any]]:
        """Look up the sales opportunities of the customer: stage, budget, needs, objections and proposal.

        Use it before you speak of buying, prices or a renewal.

        Args:
            context: Given by the run.
        """
        found = await crm.opportunities(context.contact_id)
        return [
            opportunity.model_dump(exclude={"contact_id", "version"}, exclude_none=True)
            for opportunity in found[:MAX_OPPORTUNITIES]
        ]

    return look_up
