"""The specialised agents at work: the context they get, and their results in one form for every pattern."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from agents.spec import AgentSpec
from core.context import Context
from core.customer_text import find_customer_text_fault
from core.errors import ModelError
from core.logging import get_logger
from core.memory import STRATEGIES, Fact, Hit
from core.packing import (
    Item,
    PackedContext,
    Section,
    build_fact_items,
    build_memory_items,
    count_tokens,
    pack_context,
)
from core.texts import cut, fence, make_storable
from nodes.coordinator.state import (
    Attempt,
    CoordinatorState,
    Dispatch,
    Handoff,
    Outcome,
    SpecialistInput,
    TeamCall,
)
from nodes.critique_refine.state import CritiqueRefineOutput
from nodes.deps import Deps
from nodes.planning_monitor.state import PlanningOutput
from nodes.react.state import ReactOutput, TraceEntry
from nodes.shared.citations import Grounding, no_grounding, remove_unsupported
from nodes.shared.contact import get_time_zone
from nodes.shared.context import build_background_messages
from nodes.shared.conversation import MAX_TURNS, build_turn_items, format_turn, select_unsummarised
from nodes.shared.grounding import ground_answer
from nodes.shared.memory import RetrievedMemory
from nodes.shared.prompts import build_system_prompt, load_prompt
from nodes.shared.steps import ANSWER
from nodes.shared.structured import NO_LANGUAGE_MODEL, ask_customer_text, has_language_model

log = get_logger(__name__)

# The tool that calls a person.
HANDOFF_TOOL = "hand_over_to_human"
# Earlier turns shown to the model that selects an agent.
_SELECTION_TURNS = 20
_FAILED_ANSWER_CHARACTERS = 4_000
# When the conversation fills this part of its share of the context, it is summarised down to the second part:
# the next turns have room then, and few turns pay for a summary.
_FULL = 0.8
_KEPT = 0.4
# From this many turns on a conversation is summarised, however short they are.
_MOST_TURNS = MAX_TURNS - 2


class Answer(Grounding):
    """The result of an agent's work, with what it rests on.

    Attributes:
        success: Whether ``response`` answers the task.
        response: The text for the customer, or the best there is without success.
        reason: Why there is no success.
        actions: The tools called with success, in order.
        called: The agent's call for a person.
    """

    success: bool
    response: str
    reason: str
    actions: list[str]
    called: TeamCall | None


# Runs an agent as a subgraph or within the calling node, and raises typed errors.
Specialist: TypeAlias = Callable[[AgentSpec, SpecialistInput, Context], Awaitable[Answer]]


def build_instruction(spec: AgentSpec) -> str:
    """Return the agent's prompt with the cases in which a person must take over."""
    rules = [f"- {rule.when} (team: {rule.team or spec.team})" for rule in spec.escalation_rules]
    return "\n".join([spec.prompt, "", "A person has to take over in these cases:", *rules])


def pack_agent_context(
    state: CoordinatorState, spec: AgentSpec, dispatch: Dispatch, retrieved: RetrievedMemory, budget: int
) -> PackedContext:
    """Pack everything known that helps the agent into a number of tokens; CPU-bound.

    Args:
        state: The session's state.
        spec: The agent.
        dispatch: The part of the message it answers.
        retrieved: What memory knows.
        budget: Maximum number of tokens.
    """
    hits = retrieved.hits.get((spec.retrieval, dispatch["part"]), ())
    sections = _build_sections(state, spec, dispatch, hits=hits, facts=retrieved.facts, budget=budget)
    return pack_context(sections, budget=budget, agent=spec.name, strategy=spec.retrieval)


def _build_sections(
    state: CoordinatorState,
    spec: AgentSpec,
    dispatch: Dispatch,
    *,
    hits: Sequence[Hit],
    facts: Sequence[Fact],
    budget: int,
) -> list[Section]:
    earlier = _select_earlier(state)
    known = {state["turn"], *(message.id for message in earlier if message.id)}
    whole_message = state["message"] if dispatch["part"] != state["message"] else ""
    memory_share = STRATEGIES[spec.retrieval].token_budget
    return [
        Section(name="system", items=(Item(spec.name, build_instruction(spec)),), placed="fixed"),
        Section(name="customer", items=_build_single_item("profile", state["customer"])),
        Section(name="facts", items=build_fact_items(facts)),
        Section(name="summary", items=_build_single_item("session", state.get("summary", ""))),
        Section(name="conversation", items=build_turn_items(earlier), first_in="end", share=budget // 2),
        Section(name="memories", items=build_memory_items(hits, known=known), share=memory_share),
        Section(name="message", items=_build_single_item(state["turn"], whole_message)),
        Section(
            name="attempts",
            items=(
                *(Item(attempt["agent"], _describe_failure(attempt)) for attempt in state["attempts"]),
                *_build_single_item("handoff", _describe_handoff(state["handoff"])),
            ),
        ),
    ]


def format_conversation(state: CoordinatorState) -> str:
    """Return the summary and the turns before this message; empty at the start of a session."""
    lines = [format_turn(message) for message in _select_earlier(state)[-_SELECTION_TURNS:]]
    parts = [
        fence("summary", state["summary"]) if state.get("summary") else "",
        fence("conversation", "\n".join(lines)) if lines else "",
    ]
    return "\n\n".join(filter(None, parts))


async def select_old_turns(state: CoordinatorState, answer: AnyMessage, share: int) -> Sequence[AnyMessage]:
    """Return the turns to summarise so that the rest fits a share of tokens; none while all fit.

    Args:
        state: The session's state before the answer is appended.
        answer: The answer to its latest message.
        share: Number of tokens.
    """
    messages = [*state["messages"], answer]
    messages = select_unsummarised(
        messages, turn="", summarised_to=state.get("summarised_to", ""), limit=len(messages)
    )
    turns = [format_turn(message) for message in messages]
    # A token has a character or more: most sessions are so short that nothing has to be counted.
    if len(messages) < _MOST_TURNS and sum(map(len, turns)) <= _FULL * share:
        return []
    # Counting tokens is CPU-bound.
    costs = await asyncio.to_thread(lambda: [count_tokens(turn) for turn in turns])
    if len(messages) < _MOST_TURNS and sum(costs) <= _FULL * share:
        return []
    kept, tokens = 0, 0
    for cost in reversed(costs):
        if tokens + cost > _KEPT * share or kept >= MAX_TURNS // 2:
            break
        kept, tokens = kept + 1, tokens + cost
    # The last exchange is always shown word for word.
    return messages[: len(messages) - max(kept, 2)]


def _select_earlier(state: CoordinatorState) -> list[AnyMessage]:
    return select_unsummarised(
        state["messages"], turn=state["turn"], summarised_to=state.get("summarised_to", "")
    )


def _build_single_item(name: str, text: str) -> tuple[Item, ...]:
    return (Item(name, text),) if text else ()


def _describe_failure(attempt: Attempt) -> str:
    """Return what the next agent must know about an attempt that failed."""
    actions = ", ".join(attempt["actions"])
    did = f" It had used: {actions}; do not do that again." if actions else ""
    best = attempt["response"].strip()
    found = "\n" + fence("found", cut(best, _FAILED_ANSWER_CHARACTERS)) if best else ""
    return f"{attempt['agent']} could not answer: {attempt['reason']}.{did}{found}"


def _describe_handoff(handoff: Handoff) -> str:
    """Return what the agent must know about a person who was called beside it; empty without one."""
    if not handoff["recorded"]:
        return ""
    return (
        f"A person of the team {handoff['team']} was called because: {handoff['reason']} Tell the customer "
        "that this person will write to them in this conversation, and do not hand over again."
    )


def build_attempt(agent: str, answer: Answer) -> Attempt:
    """Return the attempt of an agent that finished; an answer that no customer may read is a failure."""
    fault = find_customer_text_fault(answer["response"])
    answered = answer["success"] and not fault
    if fault and answer["response"].strip():
        log.warning("answer_refused", agent=agent, reason=fault)
    return Attempt(
        agent=agent,
        outcome="answered" if answered else "failed",
        reason="" if answered else answer["reason"] or f"its answer cannot be sent: {fault}",
        # The next agent must not take over what is wrong with it.
        response="" if fault else make_storable(answer["response"]),
        actions=answer["actions"],
        called=answer["called"],
        citations=answer["citations"],
        unsupported=answer["unsupported"],
    )


def build_failed_attempt(agent: str, outcome: Outcome, reason: str) -> Attempt:
    """Return an attempt that was broken off; its actions are in the agent's own checkpoints."""
    log.warning("agent_failed", agent=agent, outcome=outcome, reason=reason)
    return Attempt(
        agent=agent, outcome=outcome, reason=reason, response="", actions=[], called=None, **no_grounding()
    )


async def answer_directly(deps: Deps, spec: AgentSpec, task: SpecialistInput, context: Context) -> Answer:
    """Run the pattern ``answer``: one model call without tools."""
    messages: list[AnyMessage] = [
        SystemMessage(_build_system_prompt(spec, task, context)),
        HumanMessage(task["task"]),
        *build_background_messages(task["background"]),
    ]
    text = await ask_customer_text(
        deps.models, messages, step=replace(ANSWER, temperature=spec.temperature), model=context.model
    )
    if text is None:
        unable = "the model's replies could not be read"
        if not has_language_model(deps.models, context.model):
            unable = NO_LANGUAGE_MODEL
        return Answer(success=False, response="", reason=unable, actions=[], called=None, **no_grounding())
    grounding = await _ground_text(spec, task, text.text)
    return Answer(success=True, response=text.text, reason="", actions=[], called=None, **grounding)


async def write_report(
    deps: Deps, spec: AgentSpec, task: SpecialistInput, answer: Answer, context: Context
) -> Answer:
    """Write a plan's report for the customer. If the model cannot, the report stays as it is."""
    if not answer["success"]:
        return answer
    messages: list[AnyMessage] = [
        SystemMessage(_build_system_prompt(spec, task, context)),
        HumanMessage(task["task"]),
        HumanMessage(f"[What was done]\n{fence('report', answer['response'])}"),
    ]
    try:
        text = await ask_customer_text(
            deps.models, messages, step=replace(ANSWER, temperature=spec.temperature), model=context.model
        )
    except ModelError:
        # The plan has been carried out, which must not look like a failure.
        text = None
    if text is None:
        return answer
    report = remove_unsupported(answer["response"], answer["unsupported"])
    grounding = await _ground_text(spec, task, text.text, report)
    return {**answer, "response": text.text, "unsupported": grounding["unsupported"]}


async def _ground_text(spec: AgentSpec, task: SpecialistInput, text: str, *known: str) -> Grounding:
    """Check a text that was written without tools against what its agent was told."""
    told = [build_instruction(spec), task["background"], *known]
    zone = get_task_time_zone(task)
    return await ground_answer(text, message=task["task"], known=told, time_zone=zone)


def _build_system_prompt(spec: AgentSpec, task: SpecialistInput, context: Context) -> str:
    return build_system_prompt(
        load_prompt("coordinator_answer"),
        build_instruction(spec),
        locale=context.locale,
        time_zone=get_task_time_zone(task),
    )


def get_task_time_zone(task: SpecialistInput) -> str:
    """Return the time zone of the contact that a task is about; empty: unknown."""
    return get_time_zone(json.loads(task["customer"])) if task["customer"] else ""


def read_react_output(output: ReactOutput) -> Answer:
    """Return the answer of a ReAct agent."""
    return Answer(
        success=output["success"],
        response=output["final_answer"],
        reason=output["reason_incomplete"] or "",
        actions=[
            entry["action"]["tool"] for entry in output["trace"] if entry["action"] and _has_succeeded(entry)
        ],
        called=_find_team_call(output["trace"]),
        citations=output["citations"],
        unsupported=output["unsupported"],
    )


def read_critique_refine_output(output: CritiqueRefineOutput) -> Answer:
    """Return a text that was written; one below the critic's threshold is used if it may be sent."""
    validation = output["validation"]
    usable = output["success"] or bool(output["output"] and validation and validation["approved"])
    return Answer(
        success=usable,
        response=output["output"],
        reason="" if usable else output["reason"] or "",
        actions=[],
        called=None,
        citations=output["citations"],
        unsupported=output["unsupported"],
    )


def read_planning_output(output: PlanningOutput) -> Answer:
    """Return the plan's own report, which is not yet written for the customer."""
    actions = [
        action["tool"] for result in output["results"] for action in result["actions"] if action["success"]
    ]
    called = HANDOFF_TOOL in actions
    return Answer(
        success=output["completed"],
        response=output["messages"][-1].text,
        reason=output["reason"] or "",
        actions=actions,
        called=TeamCall(team="support", reason="a step of the plan called a person") if called else None,
        citations=output["citations"],
        unsupported=output["unsupported"],
    )


def _has_succeeded(entry: TraceEntry) -> bool:
    return entry["observation"] is not None and entry["observation"]["success"]


def _find_team_call(trace: Sequence[TraceEntry]) -> TeamCall | None:
    for entry in trace:
        action = entry["action"]
        if action and action["tool"] == HANDOFF_TOOL and _has_succeeded(entry):
            arguments = action["args"]
            return TeamCall(team=str(arguments.get("team", "")), reason=str(arguments.get("reason", "")))
    return None
