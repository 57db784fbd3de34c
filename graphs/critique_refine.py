"""Critique and refine: write, judge, rewrite, until good enough (Madaan et al. 2023, arXiv 2303.17651)."""

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.spec import GraphSpec
from nodes.critique_refine.nodes import CritiqueRefineNodes
from nodes.critique_refine.state import CritiqueRefineInput, CritiqueRefineOutput, CritiqueRefineState
from nodes.critique_refine.transcript import HISTORY_MESSAGES
from nodes.deps import Deps
from nodes.shared.agent import route_by_caller
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# A backstop: model calls and the CRM's client have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 240
PROMPT_BUDGET = PromptBudget(
    agent="critique_refine",
    system=load_prompt("critique_refine_generate"),
    contact_field="customer",
    history=HISTORY_MESSAGES,
)


def build_critique_refine(
    deps: Deps,
) -> StateGraph[CritiqueRefineState, Context, CritiqueRefineInput, CritiqueRefineOutput]:
    """Build the graph, uncompiled.

    ``assemble`` gathers what is known of the contact when the graph runs standalone; an embedded graph gets
    it from its caller. ``generate`` and ``refine`` send what they wrote to ``criticise`` and ``validate`` at
    once, or end the run if the model wrote nothing. ``judge`` combines both judgements and refines or ends.
    Model and CRM calls retry inside (:mod:`core.models`, :mod:`tools.crm.client`), so no node is retried as
    a whole and no token streams twice. Once there is a version, a model that fails permanently ends the run
    with that version and the reason.
    """
    nodes = CritiqueRefineNodes(deps)
    graph = StateGraph(
        CritiqueRefineState, Context, input_schema=CritiqueRefineInput, output_schema=CritiqueRefineOutput
    )
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("generate", nodes.generate)
    graph.add_node("criticise", nodes.criticise)
    graph.add_node("validate", nodes.validate)
    graph.add_node("judge", nodes.judge)
    graph.add_node("refine", nodes.refine)
    graph.add_node("finish", nodes.finish)

    graph.add_edge(START, "prepare")
    graph.add_conditional_edges(
        "prepare", route_by_caller, {"standalone": "assemble", "embedded": "generate"}
    )
    graph.add_edge("assemble", "generate")
    graph.add_edge("criticise", "judge")
    graph.add_edge("validate", "judge")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="critique_refine",
    description="Writes a message to a customer: a critic and a validator judge it, a refiner corrects it.",
    kind="model_driven",
    suits="A text that has to be right before anybody reads it.",
    build=build_critique_refine,
    input_schema=CritiqueRefineInput,
    output_schema=CritiqueRefineOutput,
    # The graph has no external effect, so a lost step is simply repeated.
    durability="async",
    # Three super-steps per cycle, ten cycles at most, and a few around them.
    recursion_limit=50,
    example={
        "prompt": "Write a message that tells the customer they are close to their contact limit, and offers "
        "a call this week to find the right plan.",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
