"""Sales: a deal goes through its stages, with a sub-agent a stage, over as many days as it takes."""

from typing import cast

from langgraph.graph import END, START, StateGraph

from core.context import Context
from graphs.hierarchical import build_hierarchical
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.hierarchical.state import HierarchicalInput, HierarchicalOutput
from nodes.sales.approve import approve
from nodes.sales.assess import assess
from nodes.sales.background import HISTORY_MESSAGES
from nodes.sales.finish import finish
from nodes.sales.open_deal import open_deal
from nodes.sales.read_results import read_results
from nodes.sales.record import record
from nodes.sales.stages import SALES_TEAM
from nodes.sales.state import SalesInput, SalesOutput, SalesState
from nodes.sales.work_stages import Team, work_stages
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# A backstop: the team's own steps have shorter limits.
STEP_TIMEOUT_SECONDS = 300
PROMPT_BUDGET = PromptBudget(
    agent="sales", system=load_prompt("sales_guidance"), contact_field="contact", history=HISTORY_MESSAGES
)


def build_sales(deps: Deps) -> StateGraph[SalesState, Context, SalesInput, SalesOutput]:
    """The graph, uncompiled.

    A run carries the deal as far as what is known allows; the next message of the customer is a new run on
    the same thread. The CRM's opportunity is the deal's only state, so a run begins with reading it and
    ends with writing it. ``assemble`` gathers what memory knows of the contact; ``work_stages`` is the
    hierarchical graph with a sub-agent a stage; ``approve`` asks a person before an offer that gives money
    away is recorded.

    What fails in a foreseen way (the model, the CRM) ends the run typed in its node, so no node is retried
    as a whole and none needs an error handler.
    """
    graph = StateGraph(SalesState, Context, input_schema=SalesInput, output_schema=SalesOutput)
    graph.set_node_defaults(timeout=STEP_TIMEOUT_SECONDS)
    graph.add_node("open_deal", open_deal(deps))
    graph.add_node("assess", assess)
    graph.add_node("assemble", ContextAssembler(deps, PROMPT_BUDGET).assemble)
    graph.add_node("work_stages", work_stages(_team(deps)))
    graph.add_node("read_results", read_results(deps))
    graph.add_node("approve", approve)
    graph.add_node("record", record(deps))
    graph.add_node("finish", finish)

    graph.add_edge(START, "open_deal")
    graph.add_edge("assess", "assemble")
    graph.add_edge("assemble", "work_stages")
    graph.add_edge("approve", "record")
    graph.add_edge("record", "finish")
    graph.add_edge("finish", END)
    return graph


def _team(deps: Deps) -> Team:
    """The hierarchical graph with a sub-agent a stage; it inherits the checkpointer of the run."""
    graph = build_hierarchical(deps, team=SALES_TEAM, guidance=load_prompt("sales_guidance"))
    stages = graph.compile(name="stages")

    async def run(given: HierarchicalInput) -> HierarchicalOutput:
        return cast("HierarchicalOutput", await stages.ainvoke(given))

    return run


SPEC = GraphSpec(
    name="sales",
    description="Carries a deal from qualification to its close, with a sub-agent a stage, over many days.",
    build=build_sales,
    input_schema=SalesInput,
    output_schema=SalesOutput,
    durability="sync",
    # The subgraph's own limit, as each graph counts its own super-steps; around it there are eight.
    recursion_limit=200,
    example={
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
        "opportunity_id": "OPP-3001",
        "message": "Our budget is 12,000 dollars a year. I decide together with our CFO, Ana Prado.",
    },
)
