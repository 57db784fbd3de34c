"""All tools, by the name the model calls them."""

from collections.abc import Mapping
from typing import Final, Literal

from langchain_core.tools import BaseTool

from core.memory import Memory, NoMemory
from tools.approval import MessageRisk
from tools.crm.client import CrmClient
from tools.customer import (
    get_contact_tool,
    get_invoices_tool,
    get_opportunities_tool,
    get_orders_tool,
    get_product_version_tool,
)
from tools.knowledge import check_service_status_tool, search_knowledge_base_tool
from tools.knowledge_base import KnowledgeBase
from tools.memory import recall_tool, remember_tool
from tools.outreach import hand_over_to_human_tool, schedule_follow_up_tool, send_solution_tool
from tools.tickets import create_engineering_ticket_tool, search_past_tickets_tool

# These only look things up.
READING_TOOLS: Final = (
    "search_knowledge_base",
    "search_past_tickets",
    "get_product_version",
    "check_service_status",
    "get_contact",
    "get_orders",
    "get_invoices",
    "get_opportunities",
    "recall",
)


def memory_tools(memory: Memory) -> Mapping[str, BaseTool]:
    """Return every tool over memory, by name."""
    return {tool.name: tool for tool in (recall_tool(memory), remember_tool(memory))}


def crm_tools(
    crm: CrmClient,
    *,
    approve_messages_from: MessageRisk | Literal["never"] = "high",
    memory: Memory | None = None,
    knowledge: KnowledgeBase | None = None,
) -> Mapping[str, BaseTool]:
    """Return every tool over the CRM, by name.

    Args:
        crm: The CRM.
        approve_messages_from: Messages to customers of this risk and above wait for a person.
        memory: Where relations between contacts, tickets and topics are kept; ``None`` keeps none.
        knowledge: The help articles; ``None``: as the CRM's own search finds them.
    """
    memory = memory or NoMemory()
    tools = (
        search_knowledge_base_tool(knowledge or KnowledgeBase(crm)),
        search_past_tickets_tool(crm, memory),
        get_product_version_tool(crm),
        check_service_status_tool(crm),
        get_contact_tool(crm, memory),
        get_orders_tool(crm),
        get_invoices_tool(crm),
        get_opportunities_tool(crm),
        create_engineering_ticket_tool(crm, memory),
        schedule_follow_up_tool(crm),
        hand_over_to_human_tool(crm),
        send_solution_tool(crm, approve_from=approve_messages_from),
    )
    return {tool.name: tool for tool in tools}
