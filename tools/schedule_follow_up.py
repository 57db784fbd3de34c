"""Plan to come back to the customer."""

from typing import Annotated

from langchain_core.tools import BaseTool, InjectedToolArg, tool
from pydantic import AwareDatetime, Field

from tools.crm.client import CrmClient
from tools.execution import CallContext


def schedule_follow_up(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("schedule_follow_up", parse_docstring=True)
    async def schedule(
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
        made = await crm.schedule_follow_up(
            context.contact_id,
            due_at=due_at.isoformat(),
            subject=subject,
            note=note,
            opportunity_id=opportunity_id or None,
            key=context.idempotency_key,
        )
        return {"follow_up_id": made.id, "due_at": made.due_at}

    return schedule
