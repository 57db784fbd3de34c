"""Onboarding: a customer's first days, as a conversation that waits for replies.

Slot filling with mixed initiative (Bobrow et al. 1977, "GUS, a frame-driven dialog system"): the questions
have an order, a reply may answer several of them, and the customer may ask questions too.
"""

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.onboarding.nodes import OnboardingNodes
from nodes.onboarding.state import OnboardingInput, OnboardingOutput, OnboardingState

# A last resort: model calls and CRM calls have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 240


def build_onboarding(
    deps: Deps,
) -> StateGraph[OnboardingState, Context, OnboardingInput, OnboardingOutput]:
    """Build the graph.

    A turn begins with ``prepare`` (a new run) or with the reply that resumes ``wait``. ``read`` takes in the
    reply and queues changes for the CRM, as the nodes that end a session do. Only ``sync`` changes the CRM:
    it makes the queued changes and goes to the next thing to tell or ask the customer.

    ``ask`` is separate from ``wait`` because a resumed node runs again from its beginning. A reply may come
    days later; there is no timer. The nodes handle failures of the model and the CRM, so none has a retry
    policy.
    """
    nodes = OnboardingNodes(deps)
    graph = StateGraph(OnboardingState, Context, input_schema=OnboardingInput, output_schema=OnboardingOutput)
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("sync", nodes.sync)
    graph.add_node("welcome", nodes.welcome)
    graph.add_node("read", nodes.read)
    graph.add_node("answer", nodes.answer)
    graph.add_node("hand_over", nodes.hand_over)
    graph.add_node("pause", nodes.pause)
    graph.add_node("complete", nodes.complete)
    graph.add_node("tour", nodes.tour)
    graph.add_node("guide", nodes.guide)
    graph.add_node("start_task", nodes.start_task)
    graph.add_node("help_out", nodes.help_out)
    graph.add_node("ask", nodes.ask)
    graph.add_node("wait", nodes.wait)
    graph.add_node("finish", nodes.finish)

    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "sync")
    for turn in ("answer", "hand_over", "pause", "complete", "start_task"):
        graph.add_edge(turn, "sync")
    graph.add_edge("guide", "ask")
    graph.add_edge("ask", "wait")
    graph.add_edge("wait", "read")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="onboarding",
    description="Takes a new customer through profile, tour and integrations, over days; asks and waits.",
    kind="hybrid",
    suits="A new customer's first days: questions in a fixed order, answered in the customer's own words.",
    build=build_onboarding,
    input_schema=OnboardingInput,
    output_schema=OnboardingOutput,
    durability="sync",
    # A run stops at the next question, after about ten super-steps.
    recursion_limit=30,
    asks="customer",
    journey="contact_id",
    example={
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
        "message": "Hello! We would like to import our contacts and export reports on them every month.",
    },
)
