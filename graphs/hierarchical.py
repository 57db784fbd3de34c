"""Hierarchical: a manager divides a task over sub-agents and decides, round by round, what is next.

The roles follow AutoGen (Wu et al. 2023, arXiv 2308.08155) and MetaGPT (Hong et al. 2023, arXiv 2308.00352);
the dependency graph between subtasks follows LLMCompiler (Kim et al. 2023, arXiv 2312.04511).
"""

from collections.abc import Sequence

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.agent import react_agent
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.hierarchical.decide import decide
from nodes.hierarchical.decompose import decompose
from nodes.hierarchical.finish import finish
from nodes.hierarchical.gather import gather
from nodes.hierarchical.manager import HISTORY_MESSAGES
from nodes.hierarchical.prepare import prepare
from nodes.hierarchical.state import HierarchicalInput, HierarchicalOutput, HierarchicalState, SubAgent
from nodes.hierarchical.team import SUPPORT_TEAM
from nodes.hierarchical.work import work
from nodes.shared.agent import Agent, route_by_caller
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# A backstop: model calls, tools and workers have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 240
PROMPT_BUDGET = PromptBudget(
    agent="hierarchical", system=load_prompt("hierarchical_decompose"), history=HISTORY_MESSAGES
)


def build_hierarchical(
    deps: Deps,
    *,
    team: Sequence[SubAgent] = SUPPORT_TEAM,
    guidance: str = "",
    agent: Agent | None = None,
) -> StateGraph[HierarchicalState, Context, HierarchicalInput, HierarchicalOutput]:
    """The graph, uncompiled.

    ``assemble`` gathers what is known of the contact, which the manager and every worker are told; as a
    step of another graph they were. ``decompose`` sends each subtask that can begin to a task of ``work``
    of its own, ``gather`` the ones that can begin after them, and ``decide`` those of a further round.
    ``decompose`` and ``decide`` are asked a second time when their subtasks cannot be carried out. A wave
    is one step, so its results come in together and ``gather`` needs no ``defer``.

    No node is retried as a whole, as model and CRM calls retry inside. A worker turns its own foreseen
    failures into a failed subtask: an ``error_handler`` would also take bugs for results, and a resumed run
    would go on with the handler instead of the worker.

    Args:
        deps: Models and tools.
        team: The sub-agents of a run that names none.
        guidance: More for the manager to know, such as in which order things are done; empty: nothing.
        agent: Who carries out the subtasks; ``None``: the ReAct agent.
    """
    graph = StateGraph(
        HierarchicalState, Context, input_schema=HierarchicalInput, output_schema=HierarchicalOutput
    )
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", prepare(deps, team))
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("decompose", decompose(deps, guidance))
    graph.add_node("work", work(agent or react_agent(deps)))
    graph.add_node("gather", gather, defer=True)
    graph.add_node("decide", decide(deps, guidance))
    graph.add_node("finish", finish)

    graph.add_edge(START, "prepare")
    graph.add_conditional_edges(
        "prepare", route_by_caller, {"standalone": "assemble", "embedded": "decompose"}
    )
    graph.add_edge("assemble", "decompose")
    graph.add_edge("work", "gather")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="hierarchical",
    description="A manager divides a task over sub-agents, who work in parallel, until it is done.",
    build=build_hierarchical,
    input_schema=HierarchicalInput,
    output_schema=HierarchicalOutput,
    durability="sync",
    # Ten rounds of at most eight waves and two decisions, two super-steps a wave, and a few around them.
    recursion_limit=200,
    example={
        "task": "Customer reports 'Error 500' when trying to export contacts. Help diagnose and resolve.",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
