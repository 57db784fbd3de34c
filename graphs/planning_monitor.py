"""Plan, execute, monitor, adjust (Plan-and-Solve, Wang et al. 2023, arXiv 2305.04091)."""

from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy

from core.context import Context
from graphs.react import react_agent
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.planning_monitor.nodes import STEP_SECONDS, PlanningMonitorNodes
from nodes.planning_monitor.state import PlanningInput, PlanningOutput, PlanningState
from nodes.planning_monitor.transcript import HISTORY_MESSAGES, add_tool_list
from nodes.shared.agent import route_by_caller
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# Backstops: model calls and steps have their own, shorter limits.
NODE_TIMEOUT_SECONDS = 600
EXECUTE_TIMEOUT_SECONDS = STEP_SECONDS + 60
# Model and CRM calls retry inside, so only a connection that broke around them is left. A step that is
# retried resumes its agent from the last checkpoint.
LOST_CONNECTION = RetryPolicy(initial_interval=0.2, max_attempts=2, retry_on=(ConnectionError,))


def build_planning_monitor(
    deps: Deps,
) -> StateGraph[PlanningState, Context, PlanningInput, PlanningOutput]:
    """Build the graph, uncompiled.

    ``assemble`` gathers what is known of the contact when the graph runs standalone; an embedded graph gets
    it from its caller. ``validate`` adopts a plan, or reports its faults to ``plan`` or ``replan`` once.
    ``validate`` and ``monitor`` send each step that can run to an ``execute`` task of its own. ``monitor``
    judges the wave's results and continues, has the remaining steps planned anew, or ends the run.
    """
    prompt_budget = PromptBudget(
        agent="planning_monitor",
        system=add_tool_list(load_prompt("planning_monitor_plan"), deps.tools),
        contact_field="contact",
        history=HISTORY_MESSAGES,
    )
    nodes = PlanningMonitorNodes(deps, react_agent(deps))
    graph = StateGraph(PlanningState, Context, input_schema=PlanningInput, output_schema=PlanningOutput)
    graph.set_node_defaults(timeout=NODE_TIMEOUT_SECONDS, retry_policy=LOST_CONNECTION)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("assemble", ContextAssembler(deps, prompt_budget).assemble)
    graph.add_node("plan", nodes.plan)
    graph.add_node("validate", nodes.validate)
    graph.add_node("execute", nodes.execute, timeout=EXECUTE_TIMEOUT_SECONDS)
    graph.add_node("monitor", nodes.monitor)
    graph.add_node("replan", nodes.replan)
    graph.add_node("finish", nodes.finish)

    graph.add_edge(START, "prepare")
    graph.add_conditional_edges("prepare", route_by_caller, {"standalone": "assemble", "embedded": "plan"})
    graph.add_edge("assemble", "plan")
    graph.add_edge("execute", "monitor")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="planning_monitor",
    description="Plans a task, carries out independent steps at once, judges each wave and adjusts the plan.",
    kind="model_driven",
    suits="A task of several steps that depend on each other.",
    calls_tools=True,
    build=build_planning_monitor,
    input_schema=PlanningInput,
    output_schema=PlanningOutput,
    durability="sync",
    # At most 4 plans of 10 steps, each step a wave of two super-steps, and a few around each plan.
    recursion_limit=120,
    example={
        "task": "Find out why the customer's contact export fails with 'Error 500'. Check whether the "
        "platform has an incident. Look for past tickets of the customer about exports.",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
        "constraints": ["Promise no date for a fix."],
    },
)
