"""Report a defect to engineering."""

from collections.abc import Mapping
from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from core.memory import Memory
from tools.approval import require_approval
from tools.crm.client import CrmClient
from tools.crm.models import Severity, Ticket
from tools.execution import CallContext
from tools.relations import RelationRecorder, build_ticket_edges


def create_engineering_ticket(crm: CrmClient, memory: Memory) -> BaseTool:
    """The tool, over this CRM; the memory's graph is told of the ticket."""
    relations = RelationRecorder(memory)

    @tool("create_engineering_ticket", parse_docstring=True)
    async def create(
        title: str, description: str, severity: Severity, context: Annotated[CallContext, InjectedToolArg]
    ) -> dict[str, str]:
        """Escalate a defect to the engineering team by opening a ticket.

        Only when support cannot solve it: no article covers it and no setting mends it.

        Args:
            title: The defect in one line.
            description: What happens, what was expected, since when, and what was found out.
            severity: low: cosmetic; medium: a workaround exists; high: work is blocked; critical: data
                is lost or everyone is affected.
            context: Given by the run.
        """
        made = await crm.create_engineering_ticket(
            context.contact_id,
            title=title,
            description=description,
            severity=severity,
            idempotency_key=context.idempotency_key,
        )
        ticket = Ticket(id=made.id, title=title, description=description)
        await relations.record(context.scope, build_ticket_edges(context.contact_id, [ticket]))
        return {"ticket_id": made.id}

    return require_approval(create, _needs_approval)


def _needs_approval(arguments: Mapping[str, Any]) -> str | None:
    return "it wakes people up: its severity is critical" if arguments["severity"] == "critical" else None
