"""Tools that reach the customer: a message, a follow-up, a handover to a person."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from langchain_core.tools import BaseTool, InjectedToolArg, tool
from pydantic import AwareDatetime, Field

from core.customer_text import CustomerText, SendableText
from core.teams import Team
from tools.approval import MESSAGE_RISKS, MessageRisk, assess_message_risk, require_approval
from tools.crm.client import CrmClient
from tools.execution import CallContext


def send_solution_tool(crm: CrmClient, *, approve_from: MessageRisk | Literal["never"] = "high") -> BaseTool:
    """Return the tool; messages of the risk ``approve_from`` and above wait for a person."""

    @tool(parse_docstring=True)
    async def send_solution_to_customer(
        solution: SendableText, context: Annotated[CallContext, InjectedToolArg]
    ) -> dict[str, str]:
        """Send the customer a message with the solution that resolves the problem.

        Once, after the problem is diagnosed, in the customer's language.

        Args:
            solution: The message as the customer will read it: the cause, the steps, the limits to mind.
            context: Given by the run.
        """
        text = CustomerText(solution)
        sent = await crm.send_message(context.contact_id, text=text, key=context.idempotency_key)
        return {"message_id": sent.id}

    def approve_risky(arguments: Mapping[str, Any]) -> str | None:
        risk = assess_message_risk(arguments["solution"])
        if approve_from == "never" or MESSAGE_RISKS.index(risk) < MESSAGE_RISKS.index(approve_from):
            return None
        return f"the risk of this message to a customer is {risk}"

    return require_approval(send_solution_to_customer, approve_risky)


def schedule_follow_up_tool(crm: CrmClient) -> BaseTool:
    """Return the tool over this CRM."""

    @tool(parse_docstring=True)
    async def schedule_follow_up(
        due_at: AwareDatetime,
        subject: Annotated[str, Field(min_length=1, max_length=200)],
        note: Annotated[str, Field(min_length=1, max_length=2_000)],
        context: Annotated[CallContext, InjectedToolArg],
        opportunity_id: Annotated[str, Field(max_length=60)] = "",
    ) -> dict[str, str]:
        """Schedule a follow-up, so that a colleague comes back to the customer at a time.

        Only when one was agreed on or something has to be looked at later.

        Args:
            due_at: When, in ISO 8601 with the offset, such as 2030-05-31T14:00:00-03:00.
            subject: What it is about, in one line.
            note: What the colleague has to know and do.
            context: Given by the run.
            opportunity_id: The opportunity it belongs to, if it belongs to one.
        """
        follow_up = await crm.schedule_follow_up(
            context.contact_id,
            due_at=due_at.isoformat(),
            subject=subject,
            note=note,
            opportunity_id=opportunity_id or None,
            key=context.idempotency_key,
        )
        return {"follow_up_id": follow_up.id, "due_at": follow_up.due_at}

    return schedule_follow_up


def hand_over_to_human_tool(crm: CrmClient) -> BaseTool:
    """Return the tool over this CRM."""

    @tool(parse_docstring=True)
    async def hand_over_to_human(
        team: Team,
        reason: Annotated[str, Field(min_length=1, max_length=500)],
        summary: Annotated[str, Field(min_length=1, max_length=4_000)],
        context: Annotated[CallContext, InjectedToolArg],
    ) -> dict[str, str]:
        """Hand the conversation over to a person of a team, who then takes it on.

        Only when the customer asks for a person, or what they need is not yours to decide.

        Args:
            team: Whose people take it on.
            reason: Why a person is needed, in one line.
            summary: What the customer wants, what was found out and done, and what is left to do.
            context: Given by the run.
        """
        handoff = await crm.hand_over(
            context.contact_id,
            team=team,
            reason=reason,
            summary=summary,
            key=context.idempotency_key,
        )
        return {"handoff_id": handoff.id, "team": handoff.team}

    return hand_over_to_human
