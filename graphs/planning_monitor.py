"""Plan, execute, monitor, adjust (Plan-and-Solve, Wang et al. 2023, arXiv 2305.04091)."""

from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy

from core.context import Context
from graphs.agent import react_agent
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.planning_monitor.briefing import HISTORY_MESSAGES, with_tool_list
from nodes.planning_monitor.execute import STEP_SECONDS, execute
from nodes.planning_monitor.finish import finish
from nodes.planning_monitor.monitor import monitor
from nodes.planning_monitor.plan import plan
from nodes.planning_monitor.prepare import prepare
from nodes.planning_monitor.replan import replan
from nodes.planning_monitor.state import PlanningInput, PlanningOutput, PlanningState
from nodes.planning_monitor.validate import validate
from nodes.shared.agent import route_by_caller
from nodes.shared.context import ContextAssembler, PromptBudget
from nodes.shared.prompts import load_prompt

# Backstops: model calls and steps have their own, shorter limits.
NODE_TIMEOUT_SECONDS = 600
EXECUTE_TIMEOUT_SECONDS = STEP_SECONDS + 60
# Model and CRM calls retry inside; what is left is a connection that broke around them. A step that is
# tried again goes on inside its agent, where its last checkpoint is.
LOST_CONNECTION = RetryPolicy(initial_interval=0.2, max_attempts=2, retry_on=(ConnectionError,))


def build_planning_monitor(
    deps: Deps,
) -> StateGraph[PlanningState, Context, PlanningInput, PlanningOutput]:
    """The graph, uncompiled.

    ``assemble`` gathers what is known of the contact, where the graph is no step of another's, which would
    have told it. ``validate`` puts a plan in force, or tells its faults back to ``plan`` or ``replan``,
    once. From there, and from ``monitor``, each step that can run is sent to a task of ``execute`` of its
    own; ``monitor`` gathers the wave's results and goes on, has the remaining steps planned anew, or ends
    the run.
    """
    prompt_budget = PromptBudget(
        agent="planning_monitor",
        system=with_tool_list(load_prompt("planning_monitor_plan"), deps.tools),
        contact_field="contact",
        history=HISTORY_MESSAGES,
    )
    graph = StateGraph(PlanningState, Context, input_schema=PlanningInput, output_schema=PlanningOutput)
    graph.set_node_defaults(timeout=NODE_TIMEOUT_SECONDS, retry_policy=LOST_CONNECTION)
    graph.add_node("prepare", prepare(deps))
    graph.add_node("assemble", ContextAssembler(deps, prompt_budget).assemble)
    graph.add_node("plan", plan(deps))
    graph.add_node("validate", validate(deps))
    graph.add_node("execute", execute(react_agent(deps)), timeout=EXECUTE_TIMEOUT_SECONDS)
    graph.add_node("monitor", monitor(deps))
    graph.add_node("replan", replan(deps))
    graph.add_node("finish", finish)

    graph.add_edge(START, "prepare")
    graph.add_conditional_edges("prepare", route_by_caller, {"standalone": "assemble", "embedded": "plan"})
    graph.add_edge("assemble", "plan")
    graph.add_edge("execute", "monitor")
    graph.add_edge("finish", END)
    return graph


SPEC = GraphSpec(
    name="planning_monitor",
    description="Plans a task, carries out independent steps at once, judges each wave and adjusts the plan.",
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
