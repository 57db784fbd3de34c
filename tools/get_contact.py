"""Look up who the customer is."""

from http import HTTPStatus
from typing import Annotated, Any

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from core.errors import CrmRefused
from core.memory import Memory
from tools.crm.client import CrmClient
from tools.execution import CallContext
from tools.relations import RelationRecorder, build_contact_edges


def get_contact(crm: CrmClient, memory: Memory) -> BaseTool:
    """The tool, over this CRM; the memory's graph is told where the contact works."""
    relations = RelationRecorder(memory)

    @tool("get_contact", parse_docstring=True)
    async def look_up(context: Annotated[CallContext, InjectedToolArg]) -> dict[str, Any]:
        """Look up who writes: name, company, language, and what is known of their size and industry.

        Use it to address the person rightly and to advise what fits their company.

        Args:
            context: Given by the run.
        """
        contact = await crm.get_contact(context.contact_id)
        await relations.record(context.scope, build_contact_edges(contact))
        return {
            **contact.model_dump(exclude={"id"}, exclude_none=True),
            "subscription": await _subscription(crm, context.contact_id),
        }

    return look_up


async def _subscription(crm: CrmClient, contact_id: str) -> dict[str, Any] | None:
    try:
        return (await crm.get_subscription(contact_id)).model_dump(exclude_none=True)
    except CrmRefused as refusal:
        if refusal.crm_status != HTTPStatus.NOT_FOUND:
            raise
        return None
