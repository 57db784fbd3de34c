"""Parallel agents: one question to several at once, and the first good answer or all of them merged.

After Dean and Barroso 2013 (hedged requests, "The Tail at Scale") and Wang et al. 2024 (Mixture-of-Agents,
arXiv 2406.04692).
"""

from langgraph.graph import END, START, StateGraph
from nodes.parallel.races import Races

from core.context import Context
from graphs.agent import react_agent
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.parallel.branch import branch
from nodes.parallel.finish import finish
from nodes.parallel.gather import gather
from nodes.parallel.merge import merge
from nodes.parallel.prepare import prepare
from nodes.parallel.state import ParallelInput, ParallelOutput, ParallelState
from nodes.parallel.to_branches import to_branches
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# A backstop: a branch has at most 300 seconds of its own, and a model call its own, shorter limits.
STEP_TIMEOUT_SECONDS = 330
# A branch is the ReAct agent.
PROMPT_BUDGET = PromptBudget(agent="parallel", system=load_prompt("react"))


def build_parallel(deps: Deps) -> StateGraph[ParallelState, Context, ParallelInput, ParallelOutput]:
    """The graph, uncompiled.

    ``assemble`` gathers what is known of the contact, once, and every agent is sent to a task of ``branch``
    of its own with it. Where the first answer is wanted, the branches of a run share a race, which
    ``gather`` ends. A branch that fails says so, so no node is retried as a whole: an agent retries inside,
    and goes on from its own checkpoints when the run is resumed.
    """
    races = Races()
    graph = StateGraph(ParallelState, Context, input_schema=ParallelInput, output_schema=ParallelOutput)
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", prepare(deps))
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("branch", branch(react_agent(deps), races))
    graph.add_node("gather", gather(races))
    graph.add_node("merge", merge(deps))
    graph.add_node("finish", finish)

    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "assemble")
    graph.add_conditional_edges("assemble", to_branches, ["branch"])
    graph.add_edge("branch", "gather")
    graph.add_edge("merge", "finish")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="parallel",
    description="Asks several agents at once; takes the first good answer, or merges all of them.",
    build=build_parallel,
    input_schema=ParallelInput,
    output_schema=ParallelOutput,
    # Agents may be given tools with effects.
    durability="sync",
    # Six super-steps; an agent in a branch has as many again for itself: three an iteration, and a few.
    recursion_limit=40,
    example={
        "question": "Why does exporting contacts fail with 'Error 500', and what helps?",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
