"""Close the session."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage

from nodes.onboarding.questions import steps_of
from nodes.onboarding.state import OnboardingState
from nodes.onboarding.summary import summary_of


async def finish(state: OnboardingState) -> dict[str, Any]:
    """Node: say what is left to say, with the summary."""
    summary = summary_of(state)
    text = "\n\n".join([*state["said"], summary])
    return {
        "messages": [AIMessage(text, id=str(uuid4()))],
        "said": [],
        "summary": summary,
        "steps": steps_of(state["outcomes"], welcomed="welcome" in state["told"]),
    }
