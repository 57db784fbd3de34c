"""Who answers, where the examples leave it open."""

from typing import Any, cast

import pytest
from nodes.coordinator.decisions import select_agent

from core.context import Context
from core.errors import ModelUnavailable
from nodes.coordinator.classifier import Candidate, Routing, Verdict
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


async def chosen(found: Routing, *replies: Any, last: str = "") -> tuple[str, str, int]:
    model = ScriptedChatModel(replies=list(replies))
    deps = Deps(
        models=scripted_models(model),
        tools={},
        crm=cast("Any", None),
        agents=load_shipped_agents(router=cast("Any", None)),
    )
    state = cast("CoordinatorState", {"message": "Hm?", "messages": [], "turn": "", "last_agent": last})
    agent, how = await select_agent(deps, state, found, Context())
    return agent, how, len(model.asked)


async def test_what_is_sure_costs_no_model_call() -> None:
    found = routing("closing", "sure", "negotiation")
    assert await chosen(found) == ("closing", "sure", 0)


async def test_the_model_decides_between_close_ones() -> None:
    found = routing("closing", "close", "negotiation", "proposal")
    assert await chosen(found, '{"agent": "negotiation"}') == ("negotiation", "model", 1)


async def test_the_model_may_say_none() -> None:
    assert await chosen(routing("closing", "close", "proposal"), f'{{"agent": "{NONE}"}}') == (
        GENERAL,
        "default",
        1,
    )


@pytest.mark.parametrize("replies", [('{"agent": "weather"}', "?"), (ModelUnavailable("away"),)])
async def test_a_model_that_cannot_decide_leaves_it_to_the_examples(replies: tuple[Any, ...]) -> None:
    found = routing("closing", "close", "proposal")
    assert (await chosen(found, *replies))[:2] == ("closing", "likely")


@pytest.mark.parametrize(
    "found",
    [
        routing("closing", "unknown", "proposal"),
        routing(GENERAL, "sure", "closing"),
        routing("closing", "close", "billing_support"),
        routing("billing_support", "close", "closing"),
    ],
)
async def test_what_is_for_nobody_else_goes_on_with_who_the_customer_talks_with(found: Routing) -> None:
    assert await chosen(found, last="billing_support") == ("billing_support", "conversation", 0)


async def test_what_is_surely_for_another_goes_to_the_other() -> None:
    found = routing("order_status", "sure", "billing_support")
    assert await chosen(found, last="billing_support") == ("order_status", "sure", 0)


async def test_an_agent_that_is_no_more_does_not_go_on() -> None:
    assert await chosen(routing("closing", "unknown"), last="gone") == (GENERAL, "default", 0)
