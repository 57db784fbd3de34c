"""The tools by name."""

from collections.abc import Callable, Mapping

from langchain_core.tools import BaseTool

from tools.check_service_status import check_service_status
from tools.create_engineering_ticket import create_engineering_ticket
from tools.crm_client import CrmClient
from tools.get_product_version import get_product_version
from tools.search_knowledge_base import search_knowledge_base
from tools.search_past_tickets import search_past_tickets
from tools.send_solution_to_customer import send_solution_to_customer

CRM_TOOLS: tuple[Callable[[CrmClient], BaseTool], ...] = (
    search_knowledge_base,
    search_past_tickets,
    get_product_version,
    check_service_status,
    create_engineering_ticket,
    send_solution_to_customer,
)


def crm_tools(crm: CrmClient) -> Mapping[str, BaseTool]:
    """Every tool over the CRM, by the name the model calls it."""
    made = [build(crm) for build in CRM_TOOLS]
    return {one.name: one for one in made}
