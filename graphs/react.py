"""ReAct: think, act, reflect, until done (Yao et al. 2022, arXiv 2210.03629)."""

from collections.abc import Sequence
from typing import cast

from langgraph.graph import START, StateGraph

from core.context import Context
from core.memory import StrategyName
from graphs.spec import GraphSpec, run_subgraph
from nodes.deps import Deps
from nodes.react.nodes import ReactNodes
from nodes.react.state import ReactInput, ReactOutput, ReactState
from nodes.react.transcript import HISTORY_MESSAGES
from nodes.shared.agent import Agent, route_by_caller
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# A backstop: model calls and tools have their own, shorter limits.
STEP_TIMEOUT_SECONDS = 300
PROMPT_BUDGET = PromptBudget(
    agent="react",
    system=f"{load_prompt('react')}\n\n{load_prompt('react_role')}",
    history=HISTORY_MESSAGES,
)


def build_react(deps: Deps) -> StateGraph[ReactState, Context, ReactInput, ReactOutput]:
    """Build the graph, uncompiled.

    ``assemble`` gathers what is known of the contact when the graph runs standalone; an embedded graph gets
    it from its caller. ``think`` sends each tool call of a thought to an ``act`` task of its own, ends the
    run, or thinks again if its reply could not be read. ``reflect`` records the observations. Model and CRM
    calls retry inside (:mod:`core.models`, :mod:`tools.crm.client`), so no node is retried as a whole:
    tokens are not streamed twice and effects keep their idempotency key.
    """
    nodes = ReactNodes(deps)
    graph = StateGraph(ReactState, Context, input_schema=ReactInput, output_schema=ReactOutput)
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("think", nodes.think)
    graph.add_node("act", nodes.act)
    graph.add_node("reflect", nodes.reflect)

    graph.add_edge(START, "prepare")
    graph.add_conditional_edges("prepare", route_by_caller, {"standalone": "assemble", "embedded": "think"})
    graph.add_edge("assemble", "think")
    graph.add_edge("act", "reflect")
    return graph


def react_agent(deps: Deps) -> Agent:
    """Compile the ReAct graph as an agent, with the checkpointer of the graph that calls it."""
    graph = build_react(deps).compile(name="agent")

    async def run(
        task: str,
        *,
        contact_id: str,
        instruction: str = "",
        background: str = "",
        expected_outcome: str = "",
        time_zone: str = "",
        tools: Sequence[str] = (),
        max_iterations: int = 6,
        temperature: float = 0.2,
        retrieval: StrategyName = "general",
        agent: str = "agent",
    ) -> ReactOutput:
        run_input = ReactInput(
            task=task,
            contact_id=contact_id,
            instruction=instruction,
            background=background,
            expected_outcome=expected_outcome,
            time_zone=time_zone,
            tools=list(tools),
            max_iterations=max_iterations,
            temperature=temperature,
            retrieval=retrieval,
            agent=agent,
        )
        return cast("ReactOutput", await run_subgraph(graph, run_input))

    return run


SPEC = GraphSpec(
    name="react",
    description="Carries out a task for a customer: thinks, acts with the CRM's tools, reflects, until done.",
    kind="model_driven",
    suits="One task whose steps are not known beforehand.",
    calls_tools=True,
    build=build_react,
    input_schema=ReactInput,
    output_schema=ReactOutput,
    durability="sync",
    # An iteration takes up to four super-steps (a reply may be asked for twice), and there are at most fifty.
    recursion_limit=210,
    example={
        "task": "Customer reports 'Error 500' when trying to export contacts. Help diagnose and resolve.",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
    },
)
