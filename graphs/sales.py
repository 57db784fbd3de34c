"""Sales: a deal goes through its stages, with one sub-agent per stage, over as many days as it takes."""

from typing import cast

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.hierarchical import build_hierarchical
from graphs.spec import GraphSpec, run_subgraph
from nodes.deps import Deps
from nodes.hierarchical.state import HierarchicalInput, HierarchicalOutput
from nodes.sales.deal import HISTORY_MESSAGES
from nodes.sales.nodes import SalesNodes, Team
from nodes.sales.stages import SALES_TEAM
from nodes.sales.state import SalesInput, SalesOutput, SalesState
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# A backstop: the team's own steps have shorter limits.
STEP_TIMEOUT_SECONDS = 300
PROMPT_BUDGET = PromptBudget(
    agent="sales", system=load_prompt("sales_guidance"), contact_field="contact", history=HISTORY_MESSAGES
)


def build_sales(deps: Deps) -> StateGraph[SalesState, Context, SalesInput, SalesOutput]:
    """Return the graph, uncompiled.

    A run carries the deal as far as what is known allows; the customer's next message is a new run on the
    same thread. The CRM's opportunity is the deal's only state, so a run starts by reading it and ends by
    writing it. ``assemble`` gathers what memory knows of the contact; ``work_stages`` is the hierarchical
    graph with one sub-agent per stage; ``approve`` asks a person before an offer that gives money away is
    recorded. ``reply`` words what the customer is told of what was recorded.

    An expected failure (the model, the CRM) ends the run with a reason, so no node is retried as a whole and
    none needs an error handler.
    """
    nodes = SalesNodes(deps, _build_team(deps))
    graph = StateGraph(SalesState, Context, input_schema=SalesInput, output_schema=SalesOutput)
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("open_deal", nodes.open_deal)
    graph.add_node("assess", nodes.assess)
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("work_stages", nodes.work_stages)
    graph.add_node("read_results", nodes.read_results)
    graph.add_node("approve", nodes.approve)
    graph.add_node("record", nodes.record)
    graph.add_node("reply", nodes.reply)
    graph.add_node("finish", nodes.finish)

    graph.add_edge(START, "open_deal")
    graph.add_edge("assess", "assemble")
    graph.add_edge("assemble", "work_stages")
    graph.add_edge("approve", "record")
    graph.add_edge("record", "reply")
    graph.add_edge("reply", "finish")
    graph.add_edge("finish", END)
    return graph


def _build_team(deps: Deps) -> Team:
    """Return the hierarchical graph with one sub-agent per stage; it inherits the run's checkpointer."""
    graph = build_hierarchical(deps, team=SALES_TEAM, guidance=load_prompt("sales_guidance"))
    stages = graph.compile(name="stages")

    async def run(task: HierarchicalInput) -> HierarchicalOutput:
        return cast("HierarchicalOutput", await run_subgraph(stages, task))

    return run


SPEC = GraphSpec(
    name="sales",
    description="Carries a deal from qualification to its close, one sub-agent per stage, over many days.",
    kind="hybrid",
    suits="A deal that takes days and whose stages build on each other.",
    calls_tools=True,
    build=build_sales,
    input_schema=SalesInput,
    output_schema=SalesOutput,
    durability="sync",
    # The limit of the subgraph: each graph counts its own super-steps, and this one has eight.
    recursion_limit=200,
    journey="opportunity_id",
    example={
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
        "opportunity_id": "OPP-3001",
        "message": "Our budget is 12,000 dollars a year. I decide together with our CFO, Ana Prado.",
    },
)
