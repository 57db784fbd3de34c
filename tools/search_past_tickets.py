"""Look at the customer's earlier tickets."""

from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from tools.call import CallContext
from tools.crm_client import CrmClient

# What a model reads at once.
MAX_TICKETS = 5


def search_past_tickets(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("search_past_tickets", parse_docstring=True)
    async def search(query: str, context: Annotated[CallContext, InjectedToolArg]) -> list[dict[str, Any]]:
        """Find the customer's earlier support tickets about a problem and how they were resolved.

        Use it to learn whether the customer reported an error like this one before.

        Args:
            query: Key words of the problem.
            context: Given by the run.
        """
        found = await crm.tickets(context.contact_id)
        words = {word for word in query.lower().split() if len(word) > 2}  # noqa: PLR2004 - "in", "of"
        ranked = sorted(
            found.tickets, key=lambda ticket: -_matches(words, f"{ticket.title} {ticket.description}")
        )
        return [ticket.model_dump(exclude_none=True, exclude={"id"}) for ticket in ranked[:MAX_TICKETS]]

    return search


def _matches(words: set[str], text: str) -> int:
    """How many of the words the text has. Sorting is stable, so equals stay newest first."""
    lowered = text.lower()
    return sum(word in lowered for word in words)
