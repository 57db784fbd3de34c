"""One agent, where the example messages leave it open."""

from typing import Any, Literal

from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import BaseModel, Field, create_model

from core.context import Context
from core.errors import ModelError
from core.logging import get_logger
from nodes.coordinator.classifier import Routing
from nodes.coordinator.router import GENERAL, AgentRegistry
from nodes.coordinator.state import CoordinatorState, Dispatch, SelectionReason
from nodes.deps import Deps
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_structured, has_language_model

log = get_logger(__name__)

# A judgement, not an invention.
TEMPERATURE = 0.0
NONE = "none_of_these"


async def choose(
    deps: Deps, state: CoordinatorState, routing: Routing, context: Context
) -> tuple[str, SelectionReason]:
    """The agent, and how it was found.

    The agent the customer talks with stays where the message is for no other, or one of the likely ones is
    itself: "yes, please" is about what was said before. Else it is the router's where that is sure, and the
    model decides where it is not.
    """
    likely = [routing.route, *(each.route for each in routing.alternatives)]
    last = state["last_agent"]
    if last in deps.agents.specs and _goes_on(routing, is_likely=last in likely):
        return last, "conversation"
    if routing.verdict == "sure":
        return routing.route, "sure"
    if routing.verdict == "unknown":
        return GENERAL, "default"
    try:
        decided = await _decided(deps, state, likely, context)
    except ModelError as error:
        log.warning("route_not_decided", reason=error.message)
        decided = None
    if decided is None:
        return routing.route, "likely"
    return (GENERAL, "default") if decided == NONE else (decided, "model")


def _goes_on(routing: Routing, *, is_likely: bool) -> bool:
    return (
        routing.verdict == "unknown" or routing.route == GENERAL or (routing.verdict == "close" and is_likely)
    )


def by_default(
    agents: AgentRegistry, message: str, chosen: Chosen = "default", confidence: float = 0.0
) -> Dispatch:
    """The general agent, for the whole message."""
    category = agents.specs[GENERAL].category
    return Dispatch(agent=GENERAL, category=category, confidence=confidence, chosen=chosen, part=message)


async def _decided(deps: Deps, state: CoordinatorState, likely: list[str], context: Context) -> str | None:
    if not has_language_model(deps.models, context.model):
        # It would match words, which the examples do better.
        return None
    agents = deps.agents.specs
    listed = "\n".join(f"- {name}: {agents[name].description}" for name in likely)
    messages = [
        SystemMessage(load_prompt("coordinator_choose")),
        HumanMessage(f"{conversation(state)}\n\n[Message]\n{state['message']}\n\n[Agents]\n{listed}".strip()),
    ]
    value = await ask_structured(
        deps.models,
        messages,
        _choice_of(likely),
        temperature=TEMPERATURE,
        role="chat",
        model=context.model,
    )
    return None if value is None else value.agent


class _Choice(BaseModel):
    agent: str


def _choice_of(likely: list[str]) -> type[_Choice]:
    names: Any = Literal[(*likely, NONE)]
    field = Field(description="Who is to answer the message")
    return create_model("Choice", __base__=_Choice, agent=(names, field))
