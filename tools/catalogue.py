"""The tools by name."""

from collections.abc import Mapping
from typing import Literal

from langchain_core.tools import BaseTool

from core.memory import Memory, NoMemory
from tools.approval import Risk
from tools.crm.client import CrmClient
from tools.customer import get_contact, get_invoices, get_opportunities, get_orders, get_product_version
from tools.knowledge import check_service_status, search_knowledge_base
from tools.memory import recall, remember
from tools.outreach import hand_over_to_human, schedule_follow_up, send_solution_to_customer
from tools.tickets import create_engineering_ticket, search_past_tickets


def memory_tools(memory: Memory) -> Mapping[str, BaseTool]:
    """Every tool over memory, by the name the model calls it."""
    return {one.name: one for one in (recall(memory), remember(memory))}


def crm_tools(
    crm: CrmClient,
    *,
    approve_messages_from: Risk | Literal["never"] = "high",
    memory: Memory | None = None,
) -> Mapping[str, BaseTool]:
    """Every tool over the CRM, by the name the model calls it.

    Args:
        crm: The CRM.
        approve_messages_from: Messages to customers of this risk and above wait for a person.
        memory: What relates tickets to other things; None: nothing does.
    """
    remembering = memory or NoMemory()
    made = (
        search_knowledge_base(crm),
        search_past_tickets(crm, remembering),
        get_product_version(crm),
        check_service_status(crm),
        get_contact(crm, remembering),
        get_orders(crm),
        get_invoices(crm),
        get_opportunities(crm),
        create_engineering_ticket(crm, remembering),
        schedule_follow_up(crm),
        hand_over_to_human(crm),
        send_solution_to_customer(crm, approve_from=approve_messages_from),
    )
    return {one.name: one for one in made}
