"""Greet the customer, once."""

from typing import Literal, TypeAlias, cast

from langgraph.types import Command

from nodes.onboarding.route import onward
from nodes.onboarding.state import OnboardingState
from nodes.onboarding.texts import TEXTS

Next: TypeAlias = Literal["read", "tour", "guide", "ask"]


async def welcome(state: OnboardingState) -> Command[Next]:
    """Node: say hello, by name where the CRM has it, and what is to come."""
    texts = TEXTS[state["language"]]
    name = state["customer"]["name"].split(maxsplit=1)[0] if state["customer"]["name"].strip() else ""
    hello = texts.hello_named.format(name=name) if name else texts.hello
    told = [*state["told"], "welcome"]
    goto = onward({**state, "told": told})
    said = [f"{hello} {texts.introduction}", *state["said"]]
    return Command(goto=cast("Next", goto), update={"told": told, "said": said})
