"""Check the platform for incidents."""

from typing import Any

from langchain_core.tools import BaseTool, tool

from tools.crm.client import CrmClient

# Resolved incidents say little about today.
MAX_INCIDENTS = 3


def check_service_status(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("check_service_status", parse_docstring=True)
    async def check() -> dict[str, Any]:
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

    return check
