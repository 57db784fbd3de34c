"""Which agent answers when the router is not sure."""

from typing import Any, cast

import pytest

from core.context import Context
from core.errors import ModelUnavailable
from nodes.coordinator.classifier import Candidate, Routing, Verdict
from nodes.coordinator.decisions import NO_AGENT, select_agent
from nodes.coordinator.router import GENERAL
from nodes.coordinator.state import CoordinatorState
from nodes.deps import Deps
from tests.support.agents import load_shipped_agents
from tests.support.scripted import ScriptedChatModel, scripted_models


def routing(route: str, verdict: Verdict, *others: str) -> Routing:
    return Routing(
        route=route,
        confidence=0.5,
        margin=0.1,
        verdict=verdict,
        alternatives=tuple(Candidate(other, 0.2) for other in others),
        familiarity=0.9,
    )


async def select(result: Routing, *replies: Any, last: str = "") -> tuple[str, str, int]:
    model = ScriptedChatModel(replies=list(replies))
    deps = Deps(
        models=scripted_models(model),
        tools={},
        crm=cast("Any", None),
        agents=load_shipped_agents(router=cast("Any", None)),
    )
    state = cast("CoordinatorState", {"message": "Hm?", "messages": [], "turn": "", "last_agent": last})
    agent, how = await select_agent(deps, state, result, Context())
    return agent, how, len(model.prompts)


async def test_a_sure_routing_costs_no_model_call() -> None:
    result = routing("closing", "sure", "negotiation")
    assert await select(result) == ("closing", "sure", 0)


async def test_the_model_decides_between_close_agents() -> None:
    result = routing("closing", "close", "negotiation", "proposal")
    assert await select(result, '{"agent": "negotiation"}') == ("negotiation", "model", 1)


async def test_the_general_agent_answers_when_the_model_finds_no_agent() -> None:
    assert await select(routing("closing", "close", "proposal"), f'{{"agent": "{NO_AGENT}"}}') == (
        GENERAL,
        "default",
        1,
    )


@pytest.mark.parametrize("replies", [('{"agent": "weather"}', "?"), (ModelUnavailable("away"),)])
async def test_the_most_likely_agent_answers_when_the_model_cannot_decide(replies: tuple[Any, ...]) -> None:
    result = routing("closing", "close", "proposal")
    assert (await select(result, *replies))[:2] == ("closing", "likely")


@pytest.mark.parametrize(
    "result",
    [
        routing("closing", "unknown", "proposal"),
        routing(GENERAL, "sure", "closing"),
        routing("closing", "close", "billing_support"),
        routing("billing_support", "close", "closing"),
    ],
)
async def test_a_message_for_no_other_agent_stays_with_the_last_agent(result: Routing) -> None:
    assert await select(result, last="billing_support") == ("billing_support", "conversation", 0)


async def test_a_message_surely_for_another_agent_goes_to_that_agent() -> None:
    result = routing("order_status", "sure", "billing_support")
    assert await select(result, last="billing_support") == ("order_status", "sure", 0)


async def test_a_removed_agent_does_not_continue() -> None:
    assert await select(routing("closing", "unknown"), last="gone") == (GENERAL, "default", 0)
