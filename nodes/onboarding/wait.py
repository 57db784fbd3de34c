"""Wait for the customer, for days if need be."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.types import interrupt

from nodes.onboarding.state import OnboardingState, QuestionToCustomer, Reply


async def wait(state: OnboardingState) -> dict[str, Any]:
    """Node: stop until the reply is there. Nothing happens in it but that, so it may run again."""
    if state["question"] is None:
        raise ValueError("nothing was asked")
    asked = QuestionToCustomer(
        kind="question",
        question=state["question"],
        text=state["asked"],
        contact_id=state["customer"]["id"],
    )
    answer: Reply = interrupt(asked, response_schema=Reply)
    return {"reply": answer.reply, "messages": [HumanMessage(answer.reply, id=str(uuid4()))]}
