"""The nodes of the ReAct graph: one class, one method per node."""

from collections.abc import Sequence
from typing import Any, Final, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.graph import END
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from core.context import Context
from core.errors import ModelRefused
from core.models import is_unable, track_answers
from core.texts import make_storable
from nodes.deps import Deps, get_run_context, get_thread_id
from nodes.react.outcome import (
    build_incomplete_update,
    find_failure_reason,
    find_reply_fault,
    find_unavailable_tool,
    list_claims,
    list_results,
    record_observations,
)
from nodes.react.state import ActInput, ReactInput, ReactState, ReasonIncomplete, Reflection, TraceEntry
from nodes.react.transcript import build_transcript, list_known_texts
from nodes.shared.agent import check_tool_names, select_tools
from nodes.shared.approval import request_approval
from nodes.shared.citations import no_grounding
from nodes.shared.context import reset_context
from nodes.shared.grounding import ground_answer
from nodes.shared.prompts import build_system_prompt, describe_time, load_prompt
from nodes.shared.steps import REFLECT, THINK
from nodes.shared.structured import ask_structured
from tools.execution import CallContext, derive_idempotency_key, execute

# Tools that take a date and time: the prompt of the others does not change within a day.
_SCHEDULING: Final = "schedule_"


class ReactNodes:
    """The nodes of the ReAct graph.

    Args:
        deps: The models and the tools.
    """

    def __init__(self, deps: Deps) -> None:
        self._models = deps.models
        self._tools = deps.tools
        self._thought_prompt = load_prompt("react")
        self._default_role = load_prompt("react_role")
        self._reflection_prompt = load_prompt("react_reflection")
        self._reflection_question = load_prompt("react_reflection_question")

    async def prepare(self, state: ReactState) -> dict[str, Any]:
        """Node: append the task to the thread and clear what the last run left.

        Raises:
            InvalidRequest: The input names an unknown tool.
        """
        given = ReactInput.model_validate(state)
        check_tool_names(self._tools, given.tools)
        message = HumanMessage(given.task, id=str(uuid4()))
        return {
            **reset_context(given.background, given.time_zone),
            "messages": [message],
            "turn": message.id,
            "iterations": 0,
            "trace": [],
            "unreadable": None,
            "success": False,
            "final_answer": "",
            "reason_incomplete": None,
            **no_grounding(),
        }

    async def think(
        self, state: ReactState, *, runtime: Runtime[Context]
    ) -> Command[Literal["act", "think", "__end__"]]:
        """Node: ask for the next thought. Its tool calls become ``act`` tasks; its words are the answer."""
        context = get_run_context(runtime)
        try:
            tools = tuple(select_tools(self._tools, state["tools"]).values())
            with track_answers() as streamed:
                reply = await self._models.reply(
                    build_transcript(
                        state,
                        self._build_system(state, self._thought_prompt, context),
                        _describe_iteration(state, tools),
                    ),
                    tools=tools,
                    temperature=state["temperature"],
                    role=THINK.role,
                    model=context.model,
                )
        except ModelRefused as refusal:
            return await _end_incomplete(state, [], "model_refused", refusal.message)
        if fault := find_reply_fault(reply):
            await streamed.retract()
            if state["unreadable"]:
                return await _end_incomplete(state, [], "model_reply_unreadable", fault)
            return Command(goto="think", update={"unreadable": fault})
        reply = _assign_call_ids(reply)
        update = {"messages": [reply], "iterations": state["iterations"] + 1, "unreadable": None}
        if reply.tool_calls:
            return Command(
                goto=[Send("act", task) for task in _build_act_inputs(reply, state)], update=update
            )
        return await _end(state, {**update, **_build_answer_update(reply, state)})

    async def act(self, state: ActInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: execute one tool call, after a person's approval where it needs one."""
        tools = select_tools(self._tools, state["tools"])
        call = request_approval(tools, state["call"], state["contact_id"])
        if isinstance(call, ToolMessage):
            return {"messages": [call]}
        key = derive_idempotency_key(get_thread_id(runtime), state["message_id"], call["id"] or "")
        context = CallContext(
            contact_id=state["contact_id"],
            idempotency_key=key,
            tenant=get_run_context(runtime).tenant,
            strategy=state["retrieval"],
            agent=state["agent"],
            time_zone=state["time_zone"],
        )
        return {"messages": [await execute(tools, call, context)]}

    async def reflect(
        self, state: ReactState, *, runtime: Runtime[Context]
    ) -> Command[Literal["think", "__end__"]]:
        """Node: record the observations, judge them where the input says so, and continue or end."""
        entries = record_observations(state)
        if not _needs_reflection(state, entries):
            return await _continue(state, entries)
        context = get_run_context(runtime)
        messages = [
            *build_transcript(state, self._build_system(state, self._reflection_prompt, context)),
            HumanMessage(self._reflection_question),
        ]
        try:
            with track_answers() as streamed:
                reflection = await ask_structured(
                    self._models,
                    messages,
                    Reflection,
                    step=REFLECT,
                    model=context.model,
                )
        except ModelRefused as refusal:
            return await _end_incomplete(state, entries, "model_refused", refusal.message)
        if reflection is None:
            detail = "the reflection could not be read"
            return await _end_incomplete(state, entries, "model_reply_unreadable", detail)
        entries = [{**entry, "reflection": reflection.model_dump()} for entry in entries]
        answer = make_storable(reflection.final_answer or "").strip()
        if not reflection.task_complete or not answer:
            await streamed.retract()
            return await _continue(state, entries)
        update = {
            "trace": [*state["trace"], *entries],
            "success": reflection.success,
            "final_answer": answer,
            "reason_incomplete": None if reflection.success else "task_failed",
        }
        return await _end(state, {**update, "messages": [AIMessage(answer)]})

    def _build_system(self, state: ReactState, prompt: str, context: Context) -> str:
        """Return the step's prompt with the agent's instruction and the day."""
        return build_system_prompt(
            prompt,
            state["instruction"] or self._default_role,
            locale=context.locale,
            time_zone=state["time_zone"],
        )


def _describe_iteration(state: ReactState, tools: Sequence[BaseTool]) -> str:
    """Return the note of a thought: how far the run is, and the time where appointments are made."""
    number, most = state["iterations"] + 1, state["max_iterations"]
    note = f"[Iteration {number} of at most {most}]"
    if number == most:
        note += " It is the last one: answer with what you know, or do the one thing that is missing."
    if any(tool.name.startswith(_SCHEDULING) for tool in tools):
        note += f" {describe_time(state['time_zone'])}"
    return note


def _assign_call_ids(reply: AIMessage) -> AIMessage:
    """Give each call a unique id, by which its observation and its idempotency key are found."""
    taken: set[str] = set()
    calls = []
    for call in reply.tool_calls:
        call_id = call["id"] if call["id"] and call["id"] not in taken else f"call-{uuid4()}"
        taken.add(call_id)
        calls.append({**call, "id": call_id})
    return reply if calls == reply.tool_calls else reply.model_copy(update={"tool_calls": calls})


def _build_act_inputs(reply: AIMessage, state: ReactState) -> list[ActInput]:
    return [
        ActInput(
            call=call,
            message_id=reply.id or "",
            contact_id=state["contact_id"],
            tools=state["tools"],
            retrieval=state["retrieval"],
            agent=state["agent"],
            time_zone=state["time_zone"],
        )
        for call in reply.tool_calls
    ]


def _build_answer_update(reply: AIMessage, state: ReactState) -> dict[str, Any]:
    """Take the thought as the answer, which is no success if every action of the run failed."""
    reason = "needs_model" if is_unable(reply) else find_failure_reason(state["trace"])
    entry = TraceEntry(
        iteration=state["iterations"] + 1, thought=reply.text, action=None, observation=None, reflection=None
    )
    return {
        "trace": [*state["trace"], entry],
        "success": reason is None,
        "final_answer": reply.text,
        "reason_incomplete": reason,
    }


def _needs_reflection(state: ReactState, entries: list[TraceEntry]) -> bool:
    if state["reflection"] == "on_error":
        return any(entry["observation"] and not entry["observation"]["success"] for entry in entries)
    return state["reflection"] == "always"


async def _continue(state: ReactState, entries: list[TraceEntry]) -> Command[Literal["think", "__end__"]]:
    """Think again, unless a tool stays unavailable or the limit of iterations is reached."""
    trace = [*state["trace"], *entries]
    if tool := find_unavailable_tool(trace):
        return await _end_incomplete(state, entries, "tool_unavailable", f"{tool} stayed unavailable")
    if state["iterations"] >= state["max_iterations"]:
        detail = f"{state['iterations']} iterations were used"
        return await _end_incomplete(state, entries, "max_iterations_reached", detail)
    return Command(goto="think", update={"trace": trace})


async def _end_incomplete(
    state: ReactState, entries: list[TraceEntry], reason: ReasonIncomplete, detail: str
) -> Command[Any]:
    update = build_incomplete_update([*state["trace"], *entries], reason, detail)
    return await _end(state, {**update, "messages": [AIMessage(update["final_answer"])]})


async def _end(state: ReactState, update: dict[str, Any]) -> Command[Any]:
    """End the run with what its answer rests on.

    Args:
        state: The state before the update.
        update: The trace, the answer, and the message that holds it.
    """
    grounding = await ground_answer(
        update["final_answer"],
        message=state["task"],
        known=list_known_texts(state),
        results=list_results(update["trace"]),
        claimed=list_claims(update["trace"]),
        time_zone=state["time_zone"],
    )
    return Command(goto=END, update={**update, **grounding})
