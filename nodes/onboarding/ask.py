"""Decide what the customer is asked next, in which words. Not in the step that waits: that one runs twice."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage

from nodes.onboarding.journey import find_next_question
from nodes.onboarding.questions import steps_of
from nodes.onboarding.state import OnboardingState
from nodes.onboarding.texts import TEXTS


async def ask(state: OnboardingState) -> dict[str, Any]:
    """Node: put everything there is to say and the next question in one message."""
    question = find_next_question(state["outcomes"])
    if question is None:
        raise ValueError("there is nothing left to ask")
    text = "\n\n".join([*state["said"], TEXTS[state["language"]].questions[question]])
    return {
        "question": question,
        "asked": text,
        "said": [],
        "misses": state["misses"] if question == state["question"] else 0,
        "messages": [AIMessage(text, id=str(uuid4()))],
        "steps": steps_of(state["outcomes"], welcomed=True),
    }
