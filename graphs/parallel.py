"""Parallel agents: one question to several at once, and the first good answer or all of them merged.

After Dean and Barroso 2013 (hedged requests, "The Tail at Scale") and Wang et al. 2024 (Mixture-of-Agents,
arXiv 2406.04692).
"""

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.react import react_agent
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.parallel.nodes import ParallelNodes
from nodes.parallel.state import ParallelInput, ParallelOutput, ParallelState
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# A backstop: a branch has at most 300 seconds, and model calls have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 330
# The agent of a branch is the ReAct agent.
PROMPT_BUDGET = PromptBudget(agent="parallel", system=load_prompt("react"))


def build_parallel(deps: Deps) -> StateGraph[ParallelState, Context, ParallelInput, ParallelOutput]:
    """Return the graph, uncompiled.

    ``assemble`` gathers what is known of the contact once for all branches. Each agent answers in a task of
    ``branch`` of its own. When the first answer is wanted, the branches of a run share a race. A branch
    reports its own failures, so no node is retried as a whole: the agent retries inside, and continues from
    its own checkpoints when the run is resumed.
    """
    nodes = ParallelNodes(deps, react_agent(deps))
    graph = StateGraph(ParallelState, Context, input_schema=ParallelInput, output_schema=ParallelOutput)
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("branch", nodes.branch)
    graph.add_node("gather", nodes.gather)
    graph.add_node("merge", nodes.merge)
    graph.add_node("finish", nodes.finish)

    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "assemble")
    graph.add_conditional_edges("assemble", nodes.send_branches, ["branch"])
    graph.add_edge("branch", "gather")
    graph.add_edge("merge", "finish")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="parallel",
    description="Asks several agents at once; takes the first good answer, or merges all of them.",
    kind="model_driven",
    suits="A question that gains from several views, or from the fastest good answer.",
    calls_tools=True,
    build=build_parallel,
    input_schema=ParallelInput,
    output_schema=ParallelOutput,
    # Agents may be given tools with effects.
    durability="sync",
    # The graph has six super-steps. The agent of a branch counts its own: at most four for each of its five
    # iterations, and a few around them.
    recursion_limit=40,
    example={
        "question": "Why does exporting contacts fail with 'Error 500', and what helps?",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
