"""Consensus: voters with different lenses, a rule that counts, a person where it does not decide.

After Wang et al. 2022 (self-consistency, arXiv 2203.11171) and Chen et al. 2023 (ReConcile, arXiv
2309.13007).
"""

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.spec import GraphSpec
from nodes.consensus.nodes import ConsensusNodes
from nodes.consensus.state import ConsensusInput, ConsensusOutput, ConsensusState
from nodes.deps import Deps
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# A backstop: voters and the CRM's client have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 240
PROMPT_BUDGET = PromptBudget(
    agent="consensus", system=load_prompt("consensus_voter"), contact_field="contact"
)


def build_consensus(deps: Deps) -> StateGraph[ConsensusState, Context, ConsensusInput, ConsensusOutput]:
    """Return the graph, uncompiled.

    ``assemble`` gathers what is known of the contact, and each voter votes in a task of ``vote`` of its own.
    ``count`` ends the run when the rule decides or nobody could vote, and otherwise leaves the question to a
    person. A voter whose model fails gives an invalid vote, so no node is retried as a whole and none has an
    error handler: one on ``ask_human`` would treat a person's invalid answer as a failure.
    """
    nodes = ConsensusNodes(deps)
    graph = StateGraph(ConsensusState, Context, input_schema=ConsensusInput, output_schema=ConsensusOutput)
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("vote", nodes.vote)
    graph.add_node("count", nodes.count)
    graph.add_node("ask_human", nodes.ask_human)
    graph.add_node("finish", nodes.finish)

    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "assemble")
    graph.add_conditional_edges("assemble", nodes.send_to_voters, ["vote"])
    graph.add_edge("vote", "count")
    graph.add_edge("ask_human", "finish")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="consensus",
    description="Puts a question to voters with different lenses; a rule decides, a person where it cannot.",
    kind="model_driven",
    suits="A decision with reasons on both sides.",
    build=build_consensus,
    input_schema=ConsensusInput,
    output_schema=ConsensusOutput,
    # The graph has no external effects: after a crash, a step is voted on again.
    durability="async",
    # The graph has six super-steps.
    recursion_limit=20,
    example={
        "question": "The customer asks for a full refund of this year's plan because exports failed for two "
        "weeks. Should we approve it?",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
