"""Coordinator: find the specialised agent for a customer's message, and answer.

A router learns from the agents' example messages (see :mod:`nodes.coordinator.router`), and a ``Command``
hands the message to the agent's subgraph.
"""

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.caching import classify_cache_policy
from graphs.spec import GraphSpec
from graphs.specialists import build_specialists
from nodes.coordinator.nodes import CoordinatorNodes
from nodes.coordinator.relay import Relay, choose_entry
from nodes.coordinator.state import CoordinatorInput, CoordinatorOutput, CoordinatorState
from nodes.deps import Deps

# A last resort: agents, model calls and CRM calls have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 200


def build_coordinator(
    deps: Deps,
) -> StateGraph[CoordinatorState, Context, CoordinatorInput, CoordinatorOutput]:
    """Build the graph.

    ``prepare`` takes the message and reads the customer's profile. ``classify`` selects the agent for the
    message, or two agents if it is about two things; it asks back with ``clarify``, or leaves the message to
    a person with ``hand_over`` where an escalation rule says so. ``call_person`` calls one beside the agent
    that answers a complaint. ``assemble`` builds the context of each agent and sends it to a ``specialist``
    task. ``collect`` takes the answers; without any it asks the general agent, and then a person. ``review``
    has a person decide on an answer that states what no source holds, where the settings say so. The
    customer is answered on every path, and ``record`` keeps the turn. Where a person has taken the
    conversation over, ``relay`` passes messages between the customer and the person instead.

    No node has a retry policy, because model and CRM calls retry inside. An agent's expected failure is a
    failed attempt. There is no ``error_handler``: it would hide bugs.
    """
    nodes = CoordinatorNodes(deps, build_specialists(deps))
    graph = StateGraph(
        CoordinatorState, Context, input_schema=CoordinatorInput, output_schema=CoordinatorOutput
    )
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("classify", nodes.classify, cache_policy=classify_cache_policy(deps))
    graph.add_node("clarify", nodes.clarify)
    graph.add_node("call_person", nodes.call_person)
    graph.add_node("assemble", nodes.assemble)
    graph.add_node("specialist", nodes.specialist)
    graph.add_node("collect", nodes.collect)
    graph.add_node("merge", nodes.merge)
    graph.add_node("review", nodes.review)
    graph.add_node("hand_over", nodes.hand_over)
    graph.add_node("record", nodes.record)
    graph.add_node("relay", Relay(deps).relay)

    graph.add_conditional_edges(START, choose_entry)
    graph.add_edge("prepare", "classify")
    graph.add_edge("call_person", "assemble")
    graph.add_edge("specialist", "collect")
    graph.add_edge("clarify", "record")
    graph.add_edge("hand_over", "record")
    graph.add_edge("relay", END)
    graph.add_edge("record", END)
    return graph


SPEC = GraphSpec(
    name="coordinator",
    description="Finds the specialised agent for a customer's message, and answers.",
    kind="hybrid",
    suits="A customer's message of any kind.",
    calls_tools=True,
    build=build_coordinator,
    input_schema=CoordinatorInput,
    output_schema=CoordinatorOutput,
    # Agents have external side effects.
    durability="sync",
    # Ten super-steps, and those of an agent: four per iteration, eight iterations, and a few more.
    recursion_limit=130,
    example={
        "message": "I get 'Error 500' when I try to export my contacts. Can you help?",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
