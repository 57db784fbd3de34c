"""Where a journey goes on."""

from typing import Literal, TypeAlias

from nodes.onboarding.journey import find_next_question
from nodes.onboarding.state import OnboardingState

Onward: TypeAlias = Literal["welcome", "read", "tour", "guide", "ask", "finish"]


def onward(state: OnboardingState) -> Onward:
    """The next step: what is not told or read yet, else the next question."""
    question = find_next_question(state["outcomes"])
    if "welcome" not in state["told"]:
        return "welcome"
    if state["reply"]:
        return "read"
    if state["status"] != "in_progress" or question is None:
        return "finish"
    if question == "tour" and "tour" not in state["told"]:
        return "tour"
    if question == "connected" and "guide" not in state["told"]:
        return "guide"
    return "ask"
