"""The nodes of the hierarchical graph."""

import asyncio
from collections.abc import Sequence
from string import Template
from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.errors import NodeTimeoutError
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite, Send

from core.context import Context
from core.errors import CrmError, ModelError, ModelRefused
from core.models import private_replies
from core.texts import cut, fence, make_storable
from nodes.deps import Deps, get_run_context
from nodes.hierarchical.plan import (
    Decision,
    Decomposition,
    PlannedSubtask,
    find_faults,
    find_ready,
    limit_agents,
    number_subtasks,
    skip_blocked,
)
from nodes.hierarchical.results import (
    build_incomplete_update,
    build_progress_message,
    describe_losses,
    is_anything_done,
    join_results,
)
from nodes.hierarchical.state import HierarchicalInput, HierarchicalState, SubAgent, Subtask, WorkInput
from nodes.hierarchical.team import complete_team, describe_team
from nodes.react.state import ReactOutput
from nodes.shared.agent import Agent
from nodes.shared.context import build_background_messages, reset_context
from nodes.shared.conversation import select_history
from nodes.shared.prompts import build_system_prompt, load_prompt
from nodes.shared.steps import DECIDE, DECOMPOSE
from nodes.shared.structured import NO_LANGUAGE_MODEL, ask_structured, has_language_model

# Maximum messages of earlier turns that the manager sees: questions and answers.
HISTORY_MESSAGES = 20
# A part of a task needs fewer iterations than a whole one.
MAX_ITERATIONS = 6
# Limit of a worker as a whole, below the timeout of its step, which would end the run.
WORK_TIMEOUT_SECONDS = 200.0
# Space for earlier results in a worker's background, shared equally.
RESULTS_CHARACTERS = 10_000
# Maximum of the manager's own subtasks that its feedback repeats.
_PLAN_CHARACTERS = 4_000


class HierarchicalNodes:
    """The nodes of the hierarchical graph.

    Args:
        deps: Models and tools.
        team: The sub-agents of a run that names none.
        guidance: Further instructions for the manager; empty: none.
        agent: Carries out the subtasks.
    """

    def __init__(self, deps: Deps, *, team: Sequence[SubAgent], guidance: str, agent: Agent) -> None:
        self._deps = deps
        self._team = team
        self._guidance = guidance
        self._agent = agent
        self._decompose_prompt = load_prompt("hierarchical_decompose")
        self._decide_prompt = load_prompt("hierarchical_decide")
        self._work_template = Template(load_prompt("hierarchical_work"))

    async def prepare(self, state: HierarchicalState) -> dict[str, Any]:
        """Open the turn: the task becomes a message, and the last run's results are cleared.

        Raises:
            InvalidRequest: The team is not valid; nothing is written to the thread.
        """
        given = HierarchicalInput.model_validate(state)
        return {
            # Studio passes only the fields a user filled in; this writes the defaults of the others.
            **dict(given),
            **reset_context(given.background, given.time_zone),
            "sub_agents": complete_team(given.sub_agents or self._team, self._deps.tools),
            "messages": [HumanMessage(make_storable(given.task), id=str(uuid4()))],
            "rounds": 0,
            "subtasks": Overwrite([]),
            "feedback": "",
            "success": False,
            "result": "",
            "reason": None,
        }

    async def decompose(
        self, state: HierarchicalState, *, runtime: Runtime[Context]
    ) -> Command[Literal["work", "decompose", "finish"]]:
        """Divide the task: name the first subtasks and send them to work."""
        context = get_run_context(runtime)
        if not has_language_model(self._deps.models, context.model):
            return _end(build_incomplete_update([], "needs_model", detail=NO_LANGUAGE_MODEL))
        try:
            plan = await ask_structured(
                self._deps.models,
                [
                    self._build_system_message(self._decompose_prompt, state, context),
                    *_build_conversation(state),
                    *_build_feedback(state),
                ],
                limit_agents(Decomposition, [agent["name"] for agent in state["sub_agents"]]),
                step=DECOMPOSE,
                model=context.model,
            )
        except ModelRefused as refusal:
            return _end(build_incomplete_update([], "model_refused", detail=refusal.message))
        if plan is None:
            detail = "it did not say how to divide the task"
            return _end(build_incomplete_update([], "decision_unreadable", detail=detail))
        return _start_round(state, plan.subtasks, requested_by="decompose")

    async def work(self, state: WorkInput) -> dict[str, Any]:
        """Carry out one subtask.

        Expected failures (the model, the CRM, a connection, time) fail the subtask and leave its siblings
        alone. Anything else is a bug and ends the run, which can be resumed once it is fixed.
        """
        subtask, agent = state["subtask"], state["agent"]
        instruction = self._work_template.substitute(
            name=agent["name"], instruction=agent.get("instruction", "")
        )
        try:
            async with asyncio.timeout(WORK_TIMEOUT_SECONDS):
                # The result of a subtask is material for the answer, not the answer.
                with private_replies():
                    output = await self._agent(
                        subtask["task"],
                        contact_id=state["contact_id"],
                        instruction=instruction.strip(),
                        background=_add_results(state["background"], state["results"]),
                        time_zone=state["time_zone"],
                        tools=agent.get("tools", []),
                        max_iterations=MAX_ITERATIONS,
                    )
        except (ModelError, CrmError) as error:
            return _abort_subtask(subtask, error.message)
        except (TimeoutError, NodeTimeoutError):
            return _abort_subtask(subtask, "it took longer than allowed")
        except ConnectionError as error:
            return _abort_subtask(subtask, f"a connection failed ({type(error).__name__})")
        if not output["success"]:
            return _end_subtask(subtask, "failed", output["final_answer"], _describe_shortcoming(output))
        return _end_subtask(subtask, "done", output["final_answer"])

    async def gather(self, state: HierarchicalState) -> Command[Literal["work", "decide"]]:
        """Send the subtasks that can start now to work; when none can, let the manager decide.

        A failed subtask takes with it those that depend on it, and no others.
        """
        skipped = skip_blocked(state["subtasks"])
        update: dict[str, Any] = {"subtasks": skipped} if skipped else {}
        wave = _build_wave(state, state["subtasks"])
        return Command(goto=wave or "decide", update=update)

    async def decide(
        self, state: HierarchicalState, *, runtime: Runtime[Context]
    ) -> Command[Literal["work", "decide", "finish"]]:
        """End with the answer, or send further subtasks to work while rounds are left."""
        context, subtasks = get_run_context(runtime), state["subtasks"]
        try:
            decision = await ask_structured(
                self._deps.models,
                [
                    self._build_system_message(self._decide_prompt, state, context),
                    *_build_conversation(state),
                    build_progress_message(subtasks),
                    _build_decision_question(state),
                    *_build_feedback(state),
                ],
                limit_agents(Decision, [agent["name"] for agent in state["sub_agents"]]),
                step=DECIDE,
                model=context.model,
            )
        except ModelRefused as refusal:
            return _end(build_incomplete_update(subtasks, "model_refused", detail=refusal.message))
        except ModelError as error:
            if not is_anything_done(subtasks):
                raise
            return _end(build_incomplete_update(subtasks, "model_unavailable", detail=error.message))
        if decision is None:
            detail = "it did not say what is next"
            return _end(build_incomplete_update(subtasks, "decision_unreadable", detail=detail))
        if decision.done:
            return _end(_conclude(subtasks, decision))
        if state["rounds"] >= state["max_rounds"]:
            detail = f"{state['rounds']} of {state['max_rounds']} were used"
            return _end(
                build_incomplete_update(subtasks, "max_rounds_reached", detail=detail, best=decision.result)
            )
        return _start_round(state, decision.subtasks, requested_by="decide", best=decision.result)

    async def finish(self, state: HierarchicalState) -> dict[str, Any]:
        """Close the turn: the result becomes the thread's last message."""
        return {"messages": [AIMessage(state["result"])]}

    def _build_system_message(self, prompt: str, state: HierarchicalState, context: Context) -> SystemMessage:
        """Return the step's prompt, with the sub-agents and the graph's own guidance."""
        parts = [prompt, f"The sub-agents:\n{describe_team(state['sub_agents'])}", self._guidance]
        return SystemMessage(build_system_prompt(*parts, locale=context.locale, time_zone=state["time_zone"]))


def _end(update: dict[str, Any]) -> Command[Any]:
    return Command(goto="finish", update=update)


def _build_conversation(state: HierarchicalState) -> list[AnyMessage]:
    """Return earlier turns, the task, and its background if it has one."""
    *earlier, task = state["messages"]
    return [
        *select_history(earlier, HISTORY_MESSAGES, state["context"]),
        task,
        *build_background_messages(state["background"]),
    ]


def _build_feedback(state: HierarchicalState) -> list[AnyMessage]:
    return [HumanMessage(state["feedback"])] if state["feedback"] else []


def _build_decision_question(state: HierarchicalState) -> HumanMessage:
    used, limit = state["rounds"], state["max_rounds"]
    more = (
        f"At most {limit - used} more may follow; number new subtasks from {len(state['subtasks']) + 1}."
        if used < limit
        else "No other may follow: conclude with what there is."
    )
    return HumanMessage(
        f"[Decision] Round {used} of {limit} has ended. {more} Is the task done, what is the answer, and "
        "what remains if it is not done?"
    )


def _conclude(subtasks: Sequence[Subtask], decision: Decision) -> dict[str, Any]:
    """Return the update of a task the manager calls done; without any result it is no success."""
    if not is_anything_done(subtasks):
        return build_incomplete_update(subtasks, "subtasks_failed", detail=describe_losses(subtasks))
    return {
        "success": decision.success,
        "result": decision.result.strip() or join_results(subtasks),
        "reason": None if decision.success else "subtasks_failed",
        "feedback": "",
    }


def _start_round(
    state: HierarchicalState,
    planned: Sequence[PlannedSubtask],
    *,
    requested_by: Literal["decompose", "decide"],
    best: str = "",
) -> Command[Any]:
    """Send the first wave of the subtasks to work.

    Subtasks that cannot be carried out go back once to the node that requested them, with everything that is
    wrong with them; a second time, they end the run.

    Args:
        state: The run's state.
        planned: The manager's new subtasks.
        requested_by: The node that requested them.
        best: The manager's answer so far.
    """
    earlier = state["subtasks"]
    faults = find_faults(planned, [agent["name"] for agent in state["sub_agents"]], earlier)
    if faults and state["feedback"]:
        detail = "; ".join(faults)
        return _end(build_incomplete_update(earlier, "decomposition_invalid", detail=detail, best=best))
    if faults:
        return Command(goto=requested_by, update={"feedback": _describe_faults(planned, faults)})
    new = number_subtasks(planned, earlier)
    update = {"subtasks": new, "rounds": state["rounds"] + 1, "feedback": ""}
    return Command(goto=_build_wave(state, [*earlier, *new]), update=update)


def _describe_faults(planned: Sequence[PlannedSubtask], faults: Sequence[str]) -> str:
    lines = [f"{each.number}. {each.agent}, after {each.depends_on}: {each.task}" for each in planned]
    return "\n".join(
        [
            "[Your subtasks cannot be carried out] They were:",
            cut("\n".join(lines), _PLAN_CHARACTERS),
            "What is wrong with them:",
            *(f"- {fault}" for fault in faults),
            "Answer again, in the form asked for, with all subtasks.",
        ]
    )


def _build_wave(state: HierarchicalState, subtasks: Sequence[Subtask]) -> list[Send]:
    """Return a ``work`` task for each subtask that can start.

    Args:
        state: The run's state.
        subtasks: All subtasks, including those that the state does not hold yet.
    """
    agents = {agent["name"]: agent for agent in state["sub_agents"]}
    by_id = {subtask["id"]: subtask for subtask in subtasks}
    return [
        Send(
            "work",
            WorkInput(
                subtask=subtask,
                agent=agents[subtask["agent"]],
                results=[by_id[each] for each in subtask["depends_on"]],
                background=state["background"],
                contact_id=state["contact_id"],
                time_zone=state["time_zone"],
            ),
        )
        for subtask in find_ready(subtasks)
    ]


def _add_results(background: str, results: Sequence[Subtask]) -> str:
    """Return the run's background with the results of the subtasks this one depends on."""
    if not results:
        return background
    share = RESULTS_CHARACTERS // len(results)
    parts = [f"{each['id']}, {each['agent']}:\n{cut(each['result'], share)}" for each in results]
    return "\n\n".join(filter(None, (background, fence("results", "\n\n".join(parts)))))


def _abort_subtask(subtask: Subtask, reason: str) -> dict[str, Any]:
    """Return the update of a subtask that was cut off; the manager must know it may have had effects."""
    reason = f"{reason.rstrip('.')}; what it had done by then is not known"
    return _end_subtask(subtask, "failed", reason=reason)


def _describe_shortcoming(output: ReactOutput) -> str:
    """Return why a worker did not succeed, and which tools it used nevertheless."""
    tools = [
        entry["action"]["tool"]
        for entry in output["trace"]
        if entry["action"] and entry["observation"] and entry["observation"]["success"]
    ]
    effects = f"; these tools did what they do: {', '.join(dict.fromkeys(tools))}" if tools else ""
    return f"{output['reason_incomplete']}{effects}"


def _end_subtask(
    subtask: Subtask, status: Literal["done", "failed"], result: str = "", reason: str | None = None
) -> dict[str, Any]:
    ended: Subtask = {**subtask, "status": status, "result": make_storable(result), "reason": reason}
    return {"subtasks": [ended]}
