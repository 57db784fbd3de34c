"""Send the customer a message."""

from typing import Annotated

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from tools.call import CallContext
from tools.crm_client import CrmClient


def send_solution_to_customer(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("send_solution_to_customer", parse_docstring=True)
    async def send(solution: str, context: Annotated[CallContext, InjectedToolArg]) -> dict[str, str]:
        """Send the customer a message with the solution that resolves the problem.

        Once, after the problem is diagnosed, in the customer's language.

        Args:
            solution: The message as the customer will read it: the cause, the steps, the limits to mind.
            context: Given by the run.
        """
        sent = await crm.send_message(
            context.contact_id, text=solution, idempotency_key=context.idempotency_key
        )
        return {"message_id": sent.id}

    return send
