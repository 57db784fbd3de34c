"""Monitor: what the results of a wave mean for the plan."""

from typing import Any, Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelError
from nodes.deps import Deps, Node, get_run_context
from nodes.planning_monitor.briefing import monitor_messages
from nodes.planning_monitor.endings import ended, ended_without_model
from nodes.planning_monitor.schema import Judgement, Plan
from nodes.planning_monitor.state import Judged, PlanningState
from nodes.planning_monitor.waves import onward
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_structured

# The same results are to be judged the same way.
TEMPERATURE = 0.1
# A task that needs more changes of plan than this is not understood.
MAX_REVISIONS = 3

Next: TypeAlias = Command[Literal["execute", "replan", "finish"]]


def monitor(deps: Deps) -> Node[PlanningState, Next]:
    """Node: ask for a judgement of the last wave and do what it says."""
    system = load_prompt("planning_monitor_monitor")
    question = load_prompt("planning_monitor_question")

    async def monitor(state: PlanningState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        try:
            judgement = await ask_structured(
                deps.models,
                monitor_messages(state, add_locale(system, context.locale), question),
                Judgement,
                temperature=TEMPERATURE,
                model=context.model,
            )
        except ModelError as error:
            return ended_without_model(state, error)
        if judgement is None:
            return Command(goto="finish", update=ended("monitor_unreadable", "its last judgement"))
        return _follow(state, judgement)

    return monitor


def _follow(state: PlanningState, judgement: Judgement) -> Next:
    judged = Judged(
        wave=state["wave"],
        success=judgement.success,
        reasoning=judgement.reasoning,
        adjustment=judgement.adjustment,
        abort=judgement.abort,
    )
    judgements = [*state["judgements"], judged]
    update: dict[str, Any] = {"judgements": judgements}
    if judged["abort"]:
        return Command(goto="finish", update={**update, **ended("aborted", judged["reasoning"])})
    if not judged["adjustment"]:
        plan = Plan.model_validate(state["plan"])
        return onward(state, plan, judgements=judgements, update=update)
    if state["revisions"] >= MAX_REVISIONS:
        detail = f"what was still to change: {judged['adjustment']}"
        return Command(goto="finish", update={**update, **ended("max_revisions_reached", detail)})
    return Command(goto="replan", update=update)
