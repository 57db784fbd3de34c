"""Critique and refine: write, judge, rewrite, until good enough (Madaan et al. 2023, arXiv 2303.17651)."""

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.spec import GraphSpec
from nodes.critique_refine.criticise import criticise
from nodes.critique_refine.finish import finish
from nodes.critique_refine.generate import generate
from nodes.critique_refine.judge import judge
from nodes.critique_refine.prepare import prepare
from nodes.critique_refine.refine import refine
from nodes.critique_refine.state import CritiqueRefineInput, CritiqueRefineOutput, CritiqueRefineState
from nodes.critique_refine.transcript import HISTORY_MESSAGES
from nodes.critique_refine.validate import validate
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
    """The graph, uncompiled.

    ``assemble`` gathers what is known of the contact, where the graph is no step of another's, which would
    have told it. ``generate`` and ``refine`` send what they wrote to ``criticise`` and ``validate`` at
    once, or end the run with ``finish`` when the model wrote nothing. ``judge`` puts both judgements
    together and refines or ends. Model calls and CRM calls retry inside (see :mod:`core.models`,
    :mod:`tools.crm.client`), so no node is retried as a whole and no token streams twice; once there is a
    version, a model that fails for good becomes the reason the run ends with (see
    :mod:`nodes.critique_refine.faults`).
    """
    graph = StateGraph(
        CritiqueRefineState, Context, input_schema=CritiqueRefineInput, output_schema=CritiqueRefineOutput
    )
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", prepare(deps))
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("generate", generate(deps))
    graph.add_node("criticise", criticise(deps))
    graph.add_node("validate", validate(deps))
    graph.add_node("judge", judge)
    graph.add_node("refine", refine(deps))
    graph.add_node("finish", finish)

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
    description="Writes a message to a customer: a critic and a validator judge it, a refiner mends it.",
    build=build_critique_refine,
    input_schema=CritiqueRefineInput,
    output_schema=CritiqueRefineOutput,
    # Nothing outside is changed: a lost step is only written again.
    durability="async",
    # Three super-steps a cycle, ten cycles at most, and a few around them.
    recursion_limit=50,
    example={
        "prompt": "Write a message that tells the customer they are close to their contact limit, and offers "
        "a call this week to find the right plan.",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
