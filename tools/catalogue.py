"""The tools by name."""

from collections.abc import Mapping
from typing import Literal

from langchain_core.tools import BaseTool

from core.memory import Memory, NoMemory
from tools.check_service_status import check_service_status
from tools.create_engineering_ticket import create_engineering_ticket
from tools.crm.client import CrmClient
from tools.get_contact import get_contact
from tools.get_invoices import get_invoices
from tools.get_opportunities import get_opportunities
from tools.get_orders import get_orders
from tools.get_product_version import get_product_version
from tools.hand_over_to_human import hand_over_to_human
from tools.message_risk import Risk
from tools.recall import recall
from tools.remember import remember
from tools.schedule_follow_up import schedule_follow_up
from tools.search_knowledge_base import search_knowledge_base
from tools.search_past_tickets import search_past_tickets
from tools.send_solution_to_customer import send_solution_to_customer


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
