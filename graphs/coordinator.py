"""Coordinator: a message comes in, the right specialised agent answers.

Routing by example utterances (see :mod:`nodes.routing`), a handoff as a ``Command`` to the agent's subgraph.
"""

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.caching import classify_cache_policy
from graphs.spec import GraphSpec
from graphs.specialists import build_specialists
from nodes.coordinator.assemble import assemble
from nodes.coordinator.clarify import clarify
from nodes.coordinator.classify import classify
from nodes.coordinator.collect import collect
from nodes.coordinator.hand_over import hand_over
from nodes.coordinator.merge import merge
from nodes.coordinator.prepare import prepare
from nodes.coordinator.recall import recall
from nodes.coordinator.record import record
from nodes.coordinator.specialist import specialist
from nodes.coordinator.state import CoordinatorInput, CoordinatorOutput, CoordinatorState
from nodes.coordinator.summarise import summarise
from nodes.deps import Deps

# A backstop: agents, model calls and CRM calls have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 200


def build_coordinator(
    deps: Deps,
) -> StateGraph[CoordinatorState, Context, CoordinatorInput, CoordinatorOutput]:
    """The graph, uncompiled.

    ``classify`` chooses the agent for the message, or one for each of its two parts; asks back with
    ``clarify``; or calls a person with ``hand_over`` where a rule of the agent says so. ``assemble`` gathers
    what each agent should know and sends it to a task of ``specialist``. ``collect`` takes the answers, asks
    the general agent where there is none, and calls a person where that has none either. The customer is
    answered on every way.

    No node is retried as a whole, as model and CRM calls retry inside, and an agent that fails is an attempt
    that failed: an ``error_handler`` would take bugs for failures, and hide them.
    """
    graph = StateGraph(
        CoordinatorState, Context, input_schema=CoordinatorInput, output_schema=CoordinatorOutput
    )
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", prepare)
    graph.add_node("recall", recall(deps))
    graph.add_node("classify", classify(deps), cache_policy=classify_cache_policy(deps))
    graph.add_node("clarify", clarify(deps))
    graph.add_node("assemble", assemble(deps))
    graph.add_node("specialist", specialist(deps, build_specialists(deps)))
    graph.add_node("collect", collect(deps))
    graph.add_node("merge", merge(deps))
    graph.add_node("hand_over", hand_over(deps))
    graph.add_node("record", record(deps))
    graph.add_node("summarise", summarise(deps))

    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "recall")
    graph.add_edge("recall", "classify")
    graph.add_edge("specialist", "collect")
    graph.add_edge("clarify", "record")
    graph.add_edge("merge", "record")
    graph.add_edge("hand_over", "record")
    graph.add_edge("record", "summarise")
    graph.add_edge("summarise", END)
    return graph


SPEC = GraphSpec(
    name="coordinator",
    description="Finds the specialised agent for a customer's message, and answers.",
    build=build_coordinator,
    input_schema=CoordinatorInput,
    output_schema=CoordinatorOutput,
    # Agents have effects on the outside.
    durability="sync",
    # A dozen super-steps; an agent has its own besides: four an iteration, eight iterations, and a few.
    recursion_limit=130,
    example={
        "message": "I get 'Error 500' when I try to export my contacts. Can you help?",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
