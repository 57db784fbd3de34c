"""Send the customer a message."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from tools.approval import RISKS, Risk, assess_message_risk, require_approval
from tools.crm.client import CrmClient
from tools.execution import CallContext


def send_solution_to_customer(crm: CrmClient, *, approve_from: Risk | Literal["never"] = "high") -> BaseTool:
    """The tool, over this CRM.

    Args:
        crm: The CRM.
        approve_from: Messages of this risk and above wait for a person.
    """

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

    def needs_approval(arguments: Mapping[str, Any]) -> str | None:
        risk = assess_message_risk(arguments["solution"])
        if approve_from == "never" or RISKS.index(risk) < RISKS.index(approve_from):
            return None
        return f"the risk of this message to a customer is {risk}"

    return require_approval(send, needs_approval)
