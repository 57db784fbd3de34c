"""The nodes of the coordinator graph: one class, one method per node."""

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.errors import NodeTimeoutError
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from agents.spec import AgentSpec
from core import deadline
from core.context import Context
from core.customer_text import CustomerText
from core.errors import CrmError, EmbeddingError, ModelError, NotFound
from core.logging import get_logger
from core.memory import Scope
from core.metrics import current_meter
from core.models import private_replies, track_answers
from core.texts import cut, detect_language, fence
from nodes.coordinator import decisions
from nodes.coordinator.classifier import Routing
from nodes.coordinator.router import GENERAL
from nodes.coordinator.specialists import (
    Answer,
    Specialist,
    build_attempt,
    build_failed_attempt,
    pack_agent_context,
    select_old_turns,
)
from nodes.coordinator.state import (
    Attempt,
    CoordinatorInput,
    CoordinatorState,
    Dispatch,
    Handoff,
    SpecialistInput,
    reset_turn,
)
from nodes.deps import Deps, get_run_context
from nodes.shared.approval import request_answer_approval
from nodes.shared.citations import merge_groundings, no_grounding, remove_unsupported
from nodes.shared.contact import (
    extract_relations,
    get_time_zone,
    share_contact_profile,
    try_load_contact_profile,
)
from nodes.shared.conversation import extract_first_sentences, mark_notice, summarise_conversation
from nodes.shared.grounding import ground_answer
from nodes.shared.memory import (
    MemoryUse,
    PendingMessage,
    current_time,
    derive_answer_id,
    record_messages,
    retrieve,
)
from nodes.shared.prompts import build_system_prompt, load_prompt
from nodes.shared.steps import WORD
from nodes.shared.structured import ask_customer_text, has_language_model
from tools.execution import derive_idempotency_key
from tools.relations import RelationRecorder

log = get_logger(__name__)

# Answers to more parts would be too long to be read.
MAX_PARTS = 2
# Time limit of an agent's work; with a fallback after it, well within the time of a run.
SPECIALIST_SECONDS = 120.0
# The customer waits for these two.
RECORD_HANDOFF_SECONDS = 10.0
SUMMARY_SECONDS = 15.0
_HANDOFF_SUMMARY_CHARACTERS = 1_000


class CoordinatorNodes:
    """The nodes of the coordinator graph.

    Args:
        deps: The models, the CRM, memory and the agent registry.
        specialists: Runs each agent of the registry, by name.
    """

    def __init__(self, deps: Deps, specialists: Mapping[str, Specialist]) -> None:
        self._deps = deps
        self._registry = deps.agents
        self._specialists = specialists
        self._relations = RelationRecorder(deps.memory)

    async def prepare(self, state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: append the message to the session, clear what the last run left, and read the profile.

        A session is a thread, so its id is the thread's wherever there is one. The run continues without the
        customer's CRM profile where the CRM is unavailable or has none.
        """
        given = CoordinatorInput.model_validate(state)
        profile = await try_load_contact_profile(self._deps, given.contact_id)
        info = runtime.execution_info
        turn = given.message_id or str(uuid4())
        pending = PendingMessage(
            id=turn, role="customer", text=given.message, at=current_time(), channel_id=given.channel_id
        )
        return {
            "messages": [HumanMessage(given.message, id=turn)],
            "turn": turn,
            "outbox": [pending],
            "session_id": (info.thread_id if info else None) or given.session_id,
            "customer": json.dumps(profile, ensure_ascii=False) if profile else "",
            **reset_turn(),
        }

    async def classify(
        self, state: CoordinatorState, *, runtime: Runtime[Context]
    ) -> Command[Literal["clarify", "assemble", "call_person", "hand_over"]]:
        """Node: dispatch the message to its agent, or to two if it is about two things."""
        registry, context = self._registry, get_run_context(runtime)
        escalation = decisions.find_escalation(
            self._deps, (state["last_agent"], GENERAL), state["message"], context
        )
        if escalation and not escalation.agent_answers:
            return Command(goto="hand_over", update={"handoff": escalation.handoff, "unclear_message": ""})
        # A reply to our question is read together with the message it explains.
        text = "\n".join(filter(None, (state["unclear_message"], state["message"])))
        try:
            parts = await registry.router.route_parts(text)
        except EmbeddingError as error:
            log.warning("message_not_routed", reason=error.message)
            dispatch = decisions.build_general_dispatch(registry, state["message"])
            return self._dispatch(state, [dispatch], [], escalation, context)
        if len(parts) > 1:
            dispatched = [
                decisions.build_dispatch(registry, each, "sure", part) for part, each in parts[:MAX_PARTS]
            ]
            rest = [each for _, each in parts[MAX_PARTS:]]
            return self._dispatch(state, dispatched, rest, escalation, context)
        routing = parts[0][1]
        if not escalation and decisions.should_ask_back(state, routing):
            alternatives = decisions.list_alternatives(registry, [routing], selected=())
            update = {"alternatives": alternatives, "unclear_message": state["message"]}
            return Command(goto="clarify", update=update)
        agent, reason = await decisions.select_agent(self._deps, state, routing, context)
        dispatch = decisions.build_dispatch(registry, routing, reason, state["message"], agent=agent)
        return self._dispatch(state, [dispatch], [routing], escalation, context)

    def _dispatch(
        self,
        state: CoordinatorState,
        dispatched: Sequence[Dispatch],
        routings: Sequence[Routing],
        escalation: decisions.Escalation | None,
        context: Context,
    ) -> Command[Literal["clarify", "assemble", "call_person", "hand_over"]]:
        """Go to the agents, or to a person if a rule says so: one of theirs, or ``escalation``."""
        names = [dispatch["agent"] for dispatch in dispatched]
        update: dict[str, Any] = {
            "dispatched": list(dispatched),
            "alternatives": decisions.list_alternatives(self._registry, routings, selected=names),
            "unclear_message": "",
        }
        escalation = decisions.find_escalation(self._deps, names, state["message"], context) or escalation
        if escalation is None:
            return Command(goto="assemble", update=update)
        update["handoff"] = escalation.handoff
        return Command(goto="call_person" if escalation.agent_answers else "hand_over", update=update)

    async def call_person(self, state: CoordinatorState) -> dict[str, Any]:
        """Node: record a hand-off in the CRM before agents answer, so that they can announce it."""
        return {"handoff": {**state["handoff"], "recorded": await self._record_handoff(state)}}

    async def clarify(self, state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: ask the customer what the message is about."""
        context = get_run_context(runtime)
        specs = [self._registry.specs[each["agent"]] for each in state["alternatives"]]
        listed = "\n".join(f"- {spec.description}" for spec in specs)
        request = f"{state['message']}\n\n[It may be about]\n{listed}"
        question = await self._write("coordinator_clarify", request, state, context)
        return {
            "response": str(
                question or decisions.QUESTION[detect_language(state["message"], context.locale)]
            ),
            "path": "clarification",
            "success": True,
            "category": state["alternatives"][0]["category"],
            "confidence": state["alternatives"][0]["confidence"],
        }

    async def assemble(
        self, state: CoordinatorState, *, runtime: Runtime[Context]
    ) -> Command[Literal["specialist"]]:
        """Node: build the context of each agent that has not tried yet, and start them.

        Memory that is unavailable or late is done without. Meanwhile the relations in the customer's profile
        are recorded in memory's graph.
        """
        tried = {attempt["agent"] for attempt in state["attempts"]}
        dispatched = [dispatch for dispatch in state["dispatched"] if dispatch["agent"] not in tried]
        specs = [self._registry.specs[dispatch["agent"]] for dispatch in dispatched]
        scope = Scope(get_run_context(runtime).tenant, state["contact_id"])
        queries = [
            (spec.retrieval, dispatch["part"]) for spec, dispatch in zip(specs, dispatched, strict=True)
        ]
        relations = extract_relations(json.loads(state["customer"])) if state["customer"] else []
        retrieved, _ = await asyncio.gather(
            retrieve(self._deps.memory, scope, queries), self._relations.record(scope, relations)
        )
        tasks, records = [], []
        for spec, dispatch in zip(specs, dispatched, strict=True):
            # Counting tokens is CPU-bound.
            packed = await asyncio.to_thread(
                pack_agent_context, state, spec, dispatch, retrieved, self._deps.context_tokens
            )
            records.append(packed.record)
            task = SpecialistInput(
                agent=spec.name,
                task=dispatch["part"],
                contact_id=state["contact_id"],
                customer=state["customer"],
                background=packed.background,
                is_part=len(dispatched) > 1,
            )
            tasks.append(Send("specialist", task))
        memory = MemoryUse(available=retrieved.available, degraded=list(retrieved.degraded), recorded=False)
        return Command(goto=tasks, update={"context": [*state["context"], *records], "memory": memory})

    async def specialist(self, state: SpecialistInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: have one agent answer.

        Expected failures (the model, the CRM, time) are a failed attempt, after which another agent is asked.
        Anything else is a bug and ends the run, which can be resumed.
        """
        spec = self._registry.specs.get(state["agent"])
        if spec is None:
            # The run was stopped, and resumes after the agent was removed.
            return {
                "attempts": [
                    build_failed_attempt(state["agent"], "failed", "there is no such agent any more")
                ]
            }
        with current_meter().track_agent(spec.name) as tracked, track_answers() as streamed:
            # The answer to a part is material for the merged one, and a person may decide on the whole.
            is_draft = state.get("is_part") or self._deps.review_unsupported
            with private_replies() if is_draft else nullcontext():
                attempt = await self._attempt(spec, state, get_run_context(runtime))
            tracked.outcome = attempt["outcome"]
        if attempt["outcome"] == "answered":
            self._registry.health.record_success(spec.name)
        else:
            await streamed.retract()
            self._registry.health.record_failure(spec.name)
        return {"attempts": [attempt]}

    async def _attempt(self, spec: AgentSpec, task: SpecialistInput, context: Context) -> Attempt:
        profile = json.loads(task["customer"]) if task["customer"] else None
        seconds = deadline.limit(SPECIALIST_SECONDS)
        try:
            async with deadline.timeout(seconds):
                with share_contact_profile(profile):
                    answer = await _answer_in_time(self._specialists[spec.name](spec, task, context))
        except (ModelError, CrmError, NotFound) as error:
            return build_failed_attempt(spec.name, "failed", error.message)
        except (TimeoutError, NodeTimeoutError):
            return build_failed_attempt(spec.name, "timed_out", f"it took longer than {seconds:.3g} s")
        return build_attempt(spec.name, answer)

    async def collect(
        self, state: CoordinatorState
    ) -> Command[Literal["merge", "assemble", "hand_over", "review", "record"]]:
        """Node: take the answer, have two merged, ask the general agent, or call a person."""
        registry = self._registry
        answers = [attempt for attempt in state["attempts"] if attempt["outcome"] == "answered"]
        if answers:
            update = {
                **decisions.build_answer_update(state, answers[0]),
                "handoff": decisions.decide_handoff(registry, state),
            }
            return Command(goto="merge", update=update) if len(answers) > 1 else self._take_answer(update)
        is_general_left = GENERAL not in {attempt["agent"] for attempt in state["attempts"]}
        if is_general_left and not deadline.is_over():
            confidences = {each["agent"]: each["confidence"] for each in state["alternatives"]}
            fallback = decisions.build_general_dispatch(
                registry, state["message"], "fallback", confidences.get(GENERAL, 0.0)
            )
            return Command(goto="assemble", update={"dispatched": [*state["dispatched"], fallback]})
        if state["handoff"]["recommended"]:
            return Command(goto="hand_over")
        handoff = decisions.build_handoff(
            decisions.find_team(registry, state),
            f"no agent could answer: {decisions.describe_failures(state)}",
        )
        return Command(goto="hand_over", update={"handoff": handoff})

    def _take_answer(self, update: dict[str, Any]) -> Command[Any]:
        """Record an answer, or have a person decide on it first."""
        if not (self._deps.review_unsupported and update["unsupported"]):
            return Command(goto="record", update=update)
        waiting = {"draft": update["response"], "response": "", "success": False}
        return Command(goto="review", update={**update, **waiting})

    async def merge(
        self, state: CoordinatorState, *, runtime: Runtime[Context]
    ) -> Command[Literal["review", "record"]]:
        """Node: merge the answers to the message's parts. If the model cannot, they follow each other."""
        attempts = decisions.list_answers(state)
        responses = [attempt["response"] for attempt in attempts]
        answers = "\n\n".join(fence("answer", response) for response in responses)
        request = f"{state['message']}\n\n[Answers]\n{answers}"
        with private_replies() if self._deps.review_unsupported else nullcontext():
            merged = await self._write("coordinator_merge", request, state, get_run_context(runtime))
        grounding = merge_groundings(attempts)
        if merged:
            known = [remove_unsupported(each, grounding["unsupported"]) for each in responses]
            added = await ground_answer(merged.text, message=state["message"], known=known)
            grounding["unsupported"] = added["unsupported"]
        # Two parts may have the same answer, such as that a person takes over.
        response = str(merged or "\n\n".join(dict.fromkeys(responses)))
        return self._take_answer({"response": response, "path": "merged", **grounding})

    async def review(self, state: CoordinatorState) -> Command[Literal["hand_over", "record"]]:
        """Node: have a person decide on an answer that states what no source holds, before the customer."""
        decision = request_answer_approval(
            state["draft"], state, agent=state["agent_used"], contact_id=state["contact_id"]
        )
        if decision.decision == "reject":
            handoff = state["handoff"]
            if not handoff["recorded"]:
                team = decisions.find_team(self._registry, state)
                handoff = decisions.build_handoff(team, f"a person rejected the answer: {decision.reason}")
            rejected = {"handoff": handoff, "reason": "answer_rejected", **no_grounding()}
            return Command(goto="hand_over", update=rejected)
        text = state["draft"] if decision.arguments is None else decision.arguments.text
        unsupported = [quantity for quantity in state["unsupported"] if quantity in text]
        answer = {"response": text, "success": True, "unsupported": unsupported}
        return Command(goto="record", update=answer)

    async def hand_over(self, state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: record the hand-off in the CRM, once, and tell the customer."""
        recorded = state["handoff"]["recorded"] or await self._record_handoff(state)
        handoff: Handoff = {**state["handoff"], "recorded": recorded}
        by_rule = not state["attempts"]
        language = detect_language(state["message"], get_run_context(runtime).locale)
        reason = None if handoff["recorded"] else "handoff_not_recorded"
        return {
            "handoff": handoff,
            "path": "handoff",
            "response": decisions.format_handoff(language, handoff, by_rule=by_rule),
            "success": by_rule and handoff["recorded"],
            "reason": reason if by_rule else state["reason"] or "agents_failed",
        }

    async def _record_handoff(self, state: CoordinatorState) -> bool:
        handoff = state["handoff"]
        try:
            with deadline.use_reserve():
                async with deadline.timeout(RECORD_HANDOFF_SECONDS):
                    await self._deps.crm.hand_over(
                        state["contact_id"],
                        team=handoff["team"],
                        reason=handoff["reason"],
                        summary=cut(state["message"], _HANDOFF_SUMMARY_CHARACTERS),
                        key=derive_idempotency_key(state["session_id"], state["turn"], "hand_over"),
                    )
        except (CrmError, TimeoutError) as error:
            log.warning("handoff_not_recorded", session_id=state["session_id"], reason=str(error))
            return False
        return True

    async def record(self, state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: append the answer to the session, record the turn in memory, and summarise older turns.

        Memory keeps no notice of a failure or a hand-off: it says nothing of the customer. What memory does
        not take stays in the outbox, and the next turn tries again.

        Raises:
            TextRefused: The answer was not checked, which is a bug.
        """
        answer_id = derive_answer_id(state["turn"])
        answer = AIMessage(CustomerText(state["response"]).text, id=answer_id)
        outbox = list(state["outbox"])
        if decisions.is_notice(state):
            answer = mark_notice(answer)
        else:
            channel_id = outbox[-1]["channel_id"] if outbox else ""
            outbox.append(
                PendingMessage(
                    id=answer_id,
                    role="agent",
                    text=answer.text,
                    at=current_time(),
                    channel_id=channel_id,
                )
            )
        context = get_run_context(runtime)
        scope = Scope(context.tenant, state["contact_id"])
        fault, summary = await asyncio.gather(
            record_messages(self._deps.memory, scope, state["session_id"], outbox),
            self._summarise_old_turns(state, answer, context),
        )
        handed_over = state["path"] == "handoff" and state["handoff"]["recorded"]
        degraded = [*state["memory"]["degraded"], *([f"record: {fault}"] if fault else [])]
        return {
            "messages": [answer],
            "last_agent": state["agent_used"] or state.get("last_agent", ""),
            "ends_session": handed_over or decisions.is_goodbye(state["message"]),
            "outbox": outbox if fault else [],
            "memory": MemoryUse(
                available=state["memory"]["available"], degraded=degraded, recorded=not fault
            ),
            **summary,
        }

    async def _summarise_old_turns(
        self, state: CoordinatorState, answer: AIMessage, context: Context
    ) -> dict[str, str]:
        """Return a summary where the conversation outgrows its share of the context; else nothing."""
        old = await select_old_turns(state, answer, self._deps.context_tokens // 2)
        if not old:
            return {}
        earlier = state.get("summary", "")
        try:
            async with deadline.timeout(SUMMARY_SECONDS):
                with private_replies():
                    summary = await summarise_conversation(
                        self._deps.models, old, earlier=earlier, model=context.model
                    )
        except TimeoutError:
            summary = extract_first_sentences(old, earlier=earlier)
        return {"summary": summary, "summarised_to": old[-1].id or ""}

    async def _write(
        self, prompt: str, request: str, state: CoordinatorState, context: Context
    ) -> CustomerText | None:
        """Have the model write a text for the customer; ``None`` if it cannot."""
        if not has_language_model(self._deps.models, context.model):
            return None
        profile = json.loads(state["customer"]) if state["customer"] else None
        system = build_system_prompt(
            load_prompt(prompt), locale=context.locale, time_zone=get_time_zone(profile)
        )
        messages: list[AnyMessage] = [SystemMessage(system), HumanMessage(request)]
        try:
            return await ask_customer_text(self._deps.models, messages, step=WORD, model=context.model)
        except ModelError as error:
            log.warning("text_not_written", prompt=prompt, reason=error.message)
            return None


async def _answer_in_time(answer: Awaitable[Answer]) -> Answer:
    """Await an agent's answer; a model or a CRM that was given no more time to answer is no fault of theirs.

    Raises:
        TimeoutError: The agent has used up its time.
    """
    try:
        return await answer
    except (ModelError, CrmError) as error:
        if deadline.is_over():
            raise TimeoutError from error
        raise
