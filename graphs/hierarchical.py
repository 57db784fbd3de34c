"""Hierarchical: a manager divides a task over sub-agents and decides, round by round, what is next.

The roles follow AutoGen (Wu et al. 2023, arXiv 2308.08155) and MetaGPT (Hong et al. 2023, arXiv 2308.00352);
the dependency graph between subtasks follows LLMCompiler (Kim et al. 2023, arXiv 2312.04511).
"""

from collections.abc import Sequence

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.react import react_agent
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.hierarchical.nodes import HISTORY_MESSAGES, HierarchicalNodes
from nodes.hierarchical.state import HierarchicalInput, HierarchicalOutput, HierarchicalState, SubAgent
from nodes.hierarchical.team import SUPPORT_TEAM
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
    """Return the graph, uncompiled.

    ``assemble`` gathers what is known of the contact for the manager and every worker; an embedded graph gets
    it from its caller. ``decompose`` sends each subtask that can start to a task of ``work`` of its own,
    ``gather`` those that can start after them, and ``decide`` those of a further round. ``decompose`` and
    ``decide`` run a second time when their subtasks cannot be carried out. A wave is one super-step, so its
    results arrive together and ``gather`` needs no ``defer``.

    No node is retried as a whole, because model and CRM calls retry inside. A worker turns its expected
    failures into a failed subtask: an ``error_handler`` would also treat bugs as results, and a resumed run
    would continue with the handler instead of the worker.

    Args:
        deps: Models and tools.
        team: The sub-agents of a run that names none.
        guidance: Further instructions for the manager, such as an order of work; empty: none.
        agent: Carries out the subtasks; ``None``: the ReAct agent.
    """
    nodes = HierarchicalNodes(deps, team=team, guidance=guidance, agent=agent or react_agent(deps))
    graph = StateGraph(
        HierarchicalState, Context, input_schema=HierarchicalInput, output_schema=HierarchicalOutput
    )
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("decompose", nodes.decompose)
    graph.add_node("work", nodes.work)
    graph.add_node("gather", nodes.gather)
    graph.add_node("decide", nodes.decide)
    graph.add_node("finish", nodes.finish)

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
    kind="model_driven",
    suits="A task with parts for different specialists.",
    calls_tools=True,
    build=build_hierarchical,
    input_schema=HierarchicalInput,
    output_schema=HierarchicalOutput,
    durability="sync",
    # At most ten rounds of eight waves and two decisions; a wave has two super-steps. There are a few others.
    recursion_limit=200,
    example={
        "task": "Customer reports 'Error 500' when trying to export contacts. Help diagnose and resolve.",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
