"""The nodes of the planning graph: one class, one method per node."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.errors import NodeTimeoutError
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite, Send
from pydantic import BaseModel

from core.context import Context
from core.errors import ModelError, ModelRefused
from core.models import ModelStep, private_replies
from core.texts import make_storable
from nodes.deps import Deps, get_run_context
from nodes.planning_monitor.plan_rules import (
    describe_outcome,
    end_incomplete,
    find_ready_steps,
    find_step_faults,
    find_sub_goal_faults,
)
from nodes.planning_monitor.schema import Judgement, Plan, PlanStep, Revision, restrict_tools
from nodes.planning_monitor.state import (
    DependencyResult,
    ExecuteInput,
    PlanningInput,
    PlanningState,
    StepAction,
    StepFailureReason,
    StepResult,
    WaveJudgement,
)
from nodes.planning_monitor.transcript import (
    add_tool_list,
    build_monitor_messages,
    build_planner_messages,
    build_replanner_messages,
    build_step_background,
    build_step_instruction,
    format_answer,
    shorten,
)
from nodes.react.state import ReactOutput
from nodes.shared.agent import Agent
from nodes.shared.citations import merge_groundings, no_grounding
from nodes.shared.contact import get_time_zone, load_contact_profile
from nodes.shared.context import reset_context
from nodes.shared.prompts import build_system_prompt, load_prompt
from nodes.shared.steps import MONITOR, PLAN, REPLAN
from nodes.shared.structured import NO_LANGUAGE_MODEL, ask_structured, has_language_model

# A task that needs more changes of its plan is not understood.
MAX_REVISIONS = 3
# A step is a small task. One that needs more is better divided by an adjustment.
STEP_ITERATIONS = 6
# A wave waits for its slowest step.
STEP_SECONDS = 600.0
# The longest answer of a step; the rest is in its agent's own checkpoints.
RESULT_CHARACTERS = 4_000
_MAX_ACTIONS: Final = 20


class PlanningMonitorNodes:
    """The nodes of the planning graph.

    Args:
        deps: The models, the CRM, and the tools a plan may use.
        agent: Carries out the steps.
    """

    def __init__(self, deps: Deps, agent: Agent) -> None:
        self._deps = deps
        self._agent = agent
        self._plan_prompt = add_tool_list(load_prompt("planning_monitor_plan"), deps.tools)
        self._plan_schema = restrict_tools(Plan, deps.tools)
        self._replan_prompt = add_tool_list(load_prompt("planning_monitor_replan"), deps.tools)
        self._revision_schema = restrict_tools(Revision, deps.tools)
        self._step_prompt = load_prompt("planning_monitor_step")
        self._monitor_prompt = load_prompt("planning_monitor_monitor")
        self._monitor_question = load_prompt("planning_monitor_question")

    async def prepare(self, state: PlanningState) -> dict[str, Any]:
        """Node: read the contact, append the task to the thread and clear what the last run left.

        Raises:
            NotFound: The CRM does not know the contact.
            CrmUnavailable: The CRM did not answer.
        """
        given = PlanningInput.model_validate(state)
        message = HumanMessage(given.task, id=str(uuid4()))
        contact = await load_contact_profile(self._deps, given.contact_id)
        return {
            **reset_context(given.background, get_time_zone(contact)),
            "messages": [message],
            "turn": message.id,
            "contact": contact,
            "draft": None,
            "faults": [],
            "plan": None,
            "wave": [],
            "results": Overwrite([]),
            "judgements": [],
            "revisions": 0,
            "completed": False,
            "reason": None,
            "detail": "",
            **no_grounding(),
        }

    async def plan(
        self, state: PlanningState, *, runtime: Runtime[Context]
    ) -> Command[Literal["validate", "finish"]]:
        """Node: ask for a plan, or for a corrected one when the last draft had faults."""
        context = get_run_context(runtime)
        if not has_language_model(self._deps.models, context.model):
            return Command(goto="finish", update=end_incomplete("needs_model", NO_LANGUAGE_MODEL))
        messages = build_planner_messages(state, _build_system(self._plan_prompt, state, context))
        return await self._draft(
            state,
            messages,
            self._plan_schema,
            step=PLAN,
            model=context.model,
            unreadable="the plan could not be read",
        )

    async def replan(
        self, state: PlanningState, *, runtime: Runtime[Context]
    ) -> Command[Literal["validate", "finish"]]:
        """Node: ask for the remaining steps anew, or for corrected ones when the last draft had faults."""
        context = get_run_context(runtime)
        messages = build_replanner_messages(state, _build_system(self._replan_prompt, state, context))
        return await self._draft(
            state,
            messages,
            self._revision_schema,
            step=REPLAN,
            model=context.model,
            unreadable="the revision of the plan could not be read",
        )

    async def validate(self, state: PlanningState) -> Command[Literal["plan", "replan", "execute", "finish"]]:
        """Node: adopt the draft and send out its first wave, or report its faults to the model, once."""
        tools = tuple(self._deps.tools)
        plan, faults = _check_revision(state, tools) if state["plan"] else _check_plan(state, tools)
        if not faults:
            revisions = state["revisions"] + 1 if state["plan"] else 0
            update = {"plan": plan.model_dump(), "revisions": revisions, "draft": None, "faults": []}
            return _dispatch_wave(state, plan, judgements=state["judgements"], update=update)
        if state["faults"]:
            return Command(goto="finish", update=end_incomplete("plan_invalid", "; ".join(faults)))
        return Command(goto="replan" if state["plan"] else "plan", update={"faults": faults})

    async def execute(self, state: ExecuteInput) -> dict[str, Any]:
        """Node: give one step to the agent. A failure is a result too, so the other steps are kept."""
        step = PlanStep.model_validate(state["step"])
        limit = asyncio.timeout(STEP_SECONDS)
        try:
            async with limit:
                # The result of a step is material for the plan, not for whoever asked.
                with private_replies():
                    output = await self._agent(
                        step.task,
                        contact_id=state["contact_id"],
                        instruction=build_step_instruction(state, self._step_prompt),
                        background=build_step_background(state),
                        tools=step.tools,
                        expected_outcome=step.expected_outcome,
                        time_zone=state["time_zone"],
                        max_iterations=STEP_ITERATIONS,
                    )
        except ModelError as error:
            return {"results": [_build_failure(step, "model_unavailable", error.message)]}
        except NodeTimeoutError as error:
            return {"results": [_build_failure(step, "timed_out", str(error))]}
        except TimeoutError:
            if not limit.expired():
                raise
            message = f"it took longer than {STEP_SECONDS:g} s"
            return {"results": [_build_failure(step, "timed_out", message)]}
        return {"results": [_build_result(step, output)]}

    async def monitor(
        self, state: PlanningState, *, runtime: Runtime[Context]
    ) -> Command[Literal["execute", "replan", "finish"]]:
        """Node: have the last wave judged, and continue, adjust the plan or end."""
        context = get_run_context(runtime)
        system = _build_system(self._monitor_prompt, state, context)
        try:
            judgement = await ask_structured(
                self._deps.models,
                build_monitor_messages(state, system, self._monitor_question),
                Judgement,
                step=MONITOR,
                model=context.model,
            )
        except ModelError as error:
            return _end_without_model(state, error)
        if judgement is None:
            return Command(goto="finish", update=end_incomplete("monitor_unreadable", "its last judgement"))
        judgements = [
            *state["judgements"],
            WaveJudgement(
                wave=state["wave"],
                success=judgement.success,
                reasoning=judgement.reasoning,
                adjustment=judgement.adjustment,
                abort=judgement.abort,
            ),
        ]
        update: dict[str, Any] = {"judgements": judgements}
        if judgement.abort:
            end = end_incomplete("aborted", judgement.reasoning)
            return Command(goto="finish", update={**update, **end})
        if not judgement.adjustment:
            plan = Plan.model_validate(state["plan"])
            return _dispatch_wave(state, plan, judgements=judgements, update=update)
        if state["revisions"] >= MAX_REVISIONS:
            end = end_incomplete("max_revisions_reached", f"what was still to change: {judgement.adjustment}")
            return Command(goto="finish", update={**update, **end})
        return Command(goto="replan", update=update)

    async def finish(self, state: PlanningState) -> dict[str, Any]:
        """Node: append what was done to the thread, with what the steps' answers rest on."""
        grounding = merge_groundings(result for result in state["results"] if result["success"])
        return {**grounding, "messages": [AIMessage(make_storable(format_answer(state)))]}

    async def _draft(
        self,
        state: PlanningState,
        messages: Sequence[AnyMessage],
        schema: type[BaseModel],
        *,
        step: ModelStep,
        model: str | None,
        unreadable: str,
    ) -> Command[Literal["validate", "finish"]]:
        """Ask for a draft; one that could not be read twice ends the run with ``unreadable``."""
        try:
            draft = await ask_structured(self._deps.models, messages, schema, step=step, model=model)
        except ModelError as error:
            return _end_without_model(state, error)
        if draft is None:
            return Command(goto="finish", update=end_incomplete("plan_invalid", unreadable))
        return Command(goto="validate", update={"draft": draft.model_dump()})


def _build_system(prompt: str, state: PlanningState, context: Context) -> str:
    return build_system_prompt(
        prompt, state["instruction"], locale=context.locale, time_zone=state["time_zone"]
    )


def _check_plan(state: PlanningState, tools: Sequence[str]) -> tuple[Plan, list[str]]:
    plan = Plan.model_validate(state["draft"])
    numbers = {sub_goal.number for sub_goal in plan.sub_goals}
    faults = [
        *find_sub_goal_faults(plan.sub_goals),
        *find_step_faults(plan.steps, sub_goals=numbers, tools=tools),
    ]
    return plan, faults


def _check_revision(state: PlanningState, tools: Sequence[str]) -> tuple[Plan, list[str]]:
    """Return the plan with its remaining steps replaced and without those that failed, and its faults."""
    plan, revision = Plan.model_validate(state["plan"]), Revision.model_validate(state["draft"])
    done = {result["step_id"] for result in state["results"] if result["success"]}
    faults = find_step_faults(
        revision.steps,
        sub_goals={sub_goal.number for sub_goal in plan.sub_goals},
        tools=tools,
        done=done,
        failed={result["step_id"] for result in state["results"]} - done,
    )
    steps: list[PlanStep] = [step for step in plan.steps if step.step_id in done]
    return plan.model_copy(update={"steps": [*steps, *revision.steps]}), faults


def _dispatch_wave(
    state: PlanningState, plan: Plan, *, judgements: Sequence[WaveJudgement], update: Mapping[str, Any]
) -> Command[Any]:
    """Send each step that can run to an ``execute`` task of its own, or finish when none can.

    Args:
        state: The run's state.
        plan: The current plan.
        judgements: All judgements so far.
        update: Other changes of the state.
    """
    wave = find_ready_steps(plan.steps, state["results"])
    if not wave:
        outcome = describe_outcome(plan, state["results"], judgements)
        return Command(goto="finish", update={**update, **outcome})
    tasks = [Send("execute", _build_execute_input(step, state)) for step in wave]
    return Command(goto=tasks, update={**update, "wave": [step.step_id for step in wave]})


def _build_execute_input(step: PlanStep, state: PlanningState) -> ExecuteInput:
    return ExecuteInput(
        step=step.model_dump(),
        instruction=state["instruction"],
        constraints=state["constraints"],
        dependencies=[
            DependencyResult(step_id=result["step_id"], task=result["task"], result=result["result"])
            for result in state["results"]
            if result["step_id"] in step.depends_on
        ],
        contact_id=state["contact_id"],
        time_zone=state["time_zone"],
    )


def _build_result(step: PlanStep, output: ReactOutput) -> StepResult:
    actions = [
        StepAction(tool=entry["action"]["tool"], success=entry["observation"]["success"])
        for entry in output["trace"]
        if entry["action"] and entry["observation"]
    ]
    return StepResult(
        step_id=step.step_id,
        task=step.task,
        success=output["success"],
        result=shorten(output["final_answer"], RESULT_CHARACTERS),
        iterations=output["iterations"],
        reason_incomplete=output["reason_incomplete"],
        actions=actions[-_MAX_ACTIONS:],
        citations=output["citations"],
        unsupported=output["unsupported"],
    )


def _build_failure(step: PlanStep, reason: StepFailureReason, message: str) -> StepResult:
    """Return the result of a step that was interrupted, whose effects until then are unknown here."""
    return StepResult(
        step_id=step.step_id,
        task=step.task,
        success=False,
        result=f"{message.rstrip('.')}. What the step had called before may have had its effect.",
        iterations=0,
        reason_incomplete=reason,
        actions=[],
        **no_grounding(),
    )


def _end_without_model(state: PlanningState, error: ModelError) -> Command[Any]:
    """End the run with what was done so far.

    Raises:
        ModelError: Nothing was done yet, so the run can be resumed later.
    """
    if isinstance(error, ModelRefused):
        return Command(goto="finish", update=end_incomplete("model_refused", error.message))
    if any(result["success"] for result in state["results"]):
        return Command(goto="finish", update=end_incomplete("model_unavailable", error.message))
    raise error
