"""Hand the conversation to a person."""

from typing import Annotated, Literal, TypeAlias

from langchain_core.tools import BaseTool, InjectedToolArg, tool
from pydantic import Field

from tools.crm.client import CrmClient
from tools.execution import CallContext

Team: TypeAlias = Literal["support", "sales", "billing", "success", "engineering", "legal"]


def hand_over_to_human(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("hand_over_to_human", parse_docstring=True)
    async def hand_over(
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
        made = await crm.hand_over(
            context.contact_id, team=team, reason=reason, summary=summary, key=context.idempotency_key
        )
        return {"handoff_id": made.id, "team": made.team}

    return hand_over
