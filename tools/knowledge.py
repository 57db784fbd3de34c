"""Tools that look up what the company knows: its help articles and the status of its platform."""

from typing import Any

from langchain_core.tools import BaseTool, tool

from tools.crm.client import CrmClient
from tools.knowledge_base import KnowledgeBase

# What a model is shown: the best articles and the latest incidents.
MAX_ARTICLES = 3
MAX_INCIDENTS = 3


def search_knowledge_base_tool(knowledge: KnowledgeBase) -> BaseTool:
    """Return the tool over the help articles."""

    @tool(parse_docstring=True)
    async def search_knowledge_base(query: str) -> list[dict[str, str]]:
        """Search the help articles for error messages, known limits and how-tos.

        Use it first when a customer reports a problem or asks how something works.

        An article that was found by words alone may be about something else.

        Args:
            query: Key words of the problem, such as the error message and the feature. Not a sentence.
        """
        found = await knowledge.find(query, limit=MAX_ARTICLES)
        return [
            {
                "id": each.article.id,
                "title": each.article.title,
                "body": each.excerpt,
                "found_by": each.found_by,
            }
            for each in found
        ]

    return search_knowledge_base


def check_service_status_tool(crm: CrmClient) -> BaseTool:
    """Return the tool over this CRM."""

    @tool(parse_docstring=True)
    async def check_service_status() -> dict[str, Any]:
        """Check whether an incident or outage of the platform explains an error the customer reports.

        Use it to diagnose errors and slowness before you blame the customer's data.
        """
        status = await crm.get_status()
        return {
            "status": status.status,
            "components": {component.name: component.status for component in status.components},
            "recent_incidents": [
                incident.model_dump(exclude_none=True) for incident in status.incidents[:MAX_INCIDENTS]
            ],
        }

    return check_service_status
