"""Onboarding: a customer's first days, as a conversation that waits between question and reply.

Slot filling with mixed initiative (Bobrow et al. 1977, "GUS, a frame-driven dialog system"): the questions
have an order, a reply may answer several of them, and the customer may ask in turn.
"""

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.onboarding.answer import answer
from nodes.onboarding.ask import ask
from nodes.onboarding.endings import complete, hand_over, pause
from nodes.onboarding.finish import finish
from nodes.onboarding.prepare import prepare
from nodes.onboarding.present import guide, tour
from nodes.onboarding.read import read
from nodes.onboarding.state import OnboardingInput, OnboardingOutput, OnboardingState
from nodes.onboarding.sync import sync
from nodes.onboarding.wait import wait
from nodes.onboarding.welcome import welcome

# A backstop: model calls and the CRM's client have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 240


def build_onboarding(
    deps: Deps,
) -> StateGraph[OnboardingState, Context, OnboardingInput, OnboardingOutput]:
    """The graph, uncompiled.

    A turn begins with ``prepare`` (a new run) or with the reply that ``wait`` was resumed with. ``read``
    takes the reply in and queues what the CRM is to be told, as the endings do. ``sync`` alone changes the
    CRM: it makes the queued changes and goes on to the next thing the customer was not told or asked yet.

    ``ask`` decides the words and ``wait`` stops: a resumed step runs again from its beginning. There is no
    timer: a reply may come days later. Failures of the model and of the CRM are taken in by the nodes, so no
    node is retried as a whole.
    """
    graph = StateGraph(OnboardingState, Context, input_schema=OnboardingInput, output_schema=OnboardingOutput)
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", prepare)
    graph.add_node("sync", sync(deps))
    graph.add_node("welcome", welcome)
    graph.add_node("read", read(deps))
    graph.add_node("answer", answer(deps))
    graph.add_node("hand_over", hand_over)
    graph.add_node("pause", pause)
    graph.add_node("complete", complete)
    graph.add_node("tour", tour(deps))
    graph.add_node("guide", guide(deps))
    graph.add_node("ask", ask)
    graph.add_node("wait", wait)
    graph.add_node("finish", finish)

    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "sync")
    for turn in ("answer", "hand_over", "pause", "complete"):
        graph.add_edge(turn, "sync")
    graph.add_edge("guide", "ask")
    graph.add_edge("ask", "wait")
    graph.add_edge("wait", "read")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="onboarding",
    description="Takes a new customer through profile, tour and integrations, over days; asks and waits.",
    build=build_onboarding,
    input_schema=OnboardingInput,
    output_schema=OnboardingOutput,
    durability="sync",
    # A run ends at its next question, some ten super-steps on.
    recursion_limit=30,
    asks="customer",
    example={
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
        "message": "Hello! We would like to import our contacts and export reports on them every month.",
    },
)
