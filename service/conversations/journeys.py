"""Give a customer's message to the journey it belongs to: their onboarding, or the sale of a deal.

A journey is a thread of its own that lasts longer than any session. A message goes to it when it answers the
question that the journey waits with, begins or continues it, or is about the open deal. Every other message
is the coordinator's, and the journey waits meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot
from pydantic import Field
from typing_extensions import TypedDict

from core.customer_text import CustomerText
from core.deadline import within
from core.errors import CrmError, EmbeddingError
from core.logging import get_logger
from core.memory import Scope
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec
from nodes.coordinator.classifier import Routing
from nodes.coordinator.state import NO_HANDOFF, Dispatch, Handoff
from nodes.deps import Deps
from nodes.onboarding.replies import parse_reply
from nodes.onboarding.state import PROFILE, Question
from nodes.sales.evidence import find_acceptance
from nodes.sales.stages import CLOSED
from nodes.shared.contact import LOAD_SECONDS
from nodes.shared.memory import (
    MemoryUse,
    PendingMessage,
    current_time,
    derive_answer_id,
    record_messages,
)
from service.auth.principal import Identity
from service.runs.request import CompiledGraph, OnStart, new_thread_id
from service.sessions.journeys import Journey, JourneyStore
from service.sessions.store import SessionEntry
from tools.crm.models import Opportunity

log = get_logger(__name__)

ONBOARDING: Final[GraphSpec] = REGISTRY["onboarding"]
SALES: Final[GraphSpec] = REGISTRY["sales"]
JOURNEYS: Final[Mapping[str, GraphSpec]] = {spec.name: spec for spec in REGISTRY.values() if spec.journey}

SALES_CATEGORY: Final = "sales"
# While the onboarding waits, messages for agents of these categories cannot wait; questions are answered too.
_OTHER_MATTERS: Final = frozenset({"support", "retention"})
# A journey asks many questions, so it begins only for a message that is probably about it.
_MIN_START_CONFIDENCE: Final = 0.7
# A shorter message answers a question rather than raising another matter.
_MIN_MATTER_WORDS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class JourneyTurn:
    """A message as the next turn of a journey.

    Attributes:
        spec: The graph that runs the journey.
        contact_id: Who wrote.
        journey: The journey.
        input: An answer to the question it waits with, or the input of a new run.
        dispatch: The choice, as the answer to the message reports it.
    """

    spec: GraphSpec
    contact_id: str
    journey: Journey
    input: dict[str, Any] | Command[Any]
    dispatch: Dispatch


class JourneyView(TypedDict):
    """The journey that a message belongs to."""

    graph: Annotated[str, Field(description="onboarding or sales")]
    subject: Annotated[str, Field(description="What it is about: the opportunity's id, or the contact's")]
    thread_id: Annotated[str, Field(description="Its thread")]


class JourneyRouter:
    """Finds the journey that a message belongs to.

    Args:
        store: Where journeys are.
        graphs: The compiled graphs by name.
        deps: The agents, the CRM, the models and memory.
    """

    def __init__(self, store: JourneyStore, graphs: Mapping[str, CompiledGraph], deps: Deps) -> None:
        self._store = store
        self._graphs = graphs
        self._agents = deps.agents
        # Agents share most of their rules; each rule is tried once.
        self._escalation_rules = frozenset(
            rule for spec in deps.agents.specs.values() if spec.escalation for rule in spec.escalation_rules
        )
        self._crm = deps.crm
        self._models = deps.models
        self._memory = deps.memory

    async def choose(
        self,
        identity: Identity,
        contact_id: str,
        message: str,
        *,
        session: SessionEntry,
        message_id: str,
    ) -> JourneyTurn | None:
        """Return the message as the next turn of a journey; ``None``: it is the coordinator's.

        The choice is recorded with the message, so that a repeated one goes to the same thread.

        Args:
            identity: The caller.
            contact_id: Who wrote.
            message: What they wrote.
            session: The session the message came in, and whether it came before.
            message_id: The message's id; empty: it has none.
        """
        journeys = await self._store.list_for_contact(identity.tenant, contact_id)
        if session.repeated:
            thread_id = await self._store.find_message(identity.tenant, contact_id, message_id)
            repeated = next((each for each in journeys if each.thread_id == thread_id), None)
            if repeated is None:
                return None
            return _build_turn(JOURNEYS[repeated.graph], repeated, contact_id, message, None)
        turn = await self._choose(journeys, contact_id, message, session.session_id)
        if turn is None:
            return None
        journey = replace(turn.journey, session_id=session.session_id)
        thread_id = await self._store.claim(identity.tenant, contact_id, journey, message_id=message_id)
        if thread_id != turn.journey.thread_id:
            turn = replace(turn, journey=replace(turn.journey, thread_id=thread_id))
        return turn

    def register_on_start(
        self, spec: GraphSpec, identity: Identity, graph_input: Any, *, thread_id: str, on_start: OnStart
    ) -> OnStart:
        """Return a run's ``on_start`` that first records where a journey is that its caller has begun.

        Args:
            spec: The graph; of one that is no journey, ``on_start`` itself is returned.
            identity: The caller.
            graph_input: The run's input; an answer or a continuation begins nothing.
            thread_id: The run's thread.
            on_start: Called afterwards.
        """
        if not spec.journey or not isinstance(graph_input, Mapping):
            return on_start
        subject, contact_id = str(graph_input[spec.journey]), str(graph_input["contact_id"])
        journey = Journey(
            graph=spec.name, subject=subject, thread_id=thread_id, session_id="", is_waiting=False
        )

        async def register_journey() -> BaseCallbackManager:
            await self._store.move(identity.tenant, contact_id, journey)
            return await on_start()

        return register_journey

    async def build_answer(
        self,
        turn: JourneyTurn,
        output: Mapping[str, Any],
        *,
        identity: Identity,
        session_id: str,
        message_id: str,
    ) -> dict[str, Any]:
        """Return a journey's output in the form of the coordinator's, and have memory keep what was said.

        Args:
            turn: The message as the journey's turn.
            output: The graph's output.
            identity: The caller.
            session_id: The session the message came in.
            message_id: The message's id; empty: it has none.
        """
        response = CustomerText(text).text if (text := read_response(output)) else ""
        handoff = read_handoff(output)
        recorded = await self._record(turn, response, identity, session_id, message_id or str(uuid4()))
        return {
            "success": output.get("success", True),
            "response": response,
            "agent_used": turn.spec.name,
            "category": turn.dispatch["category"],
            "confidence": turn.dispatch["confidence"],
            "alternatives": [],
            "session_id": session_id,
            "handoff": handoff,
            "path": "handoff" if handoff["recommended"] else "journey",
            "dispatched": [turn.dispatch],
            "attempts": [],
            "ends_session": False,
            "reason": output.get("reason"),
            "memory": MemoryUse(available=False, degraded=[], recorded=recorded),
            "context": output.get("context", []),
            "citations": output.get("citations", []),
            "unsupported": output.get("unsupported", []),
            "journey": JourneyView(
                graph=turn.spec.name, subject=turn.journey.subject, thread_id=turn.journey.thread_id
            ),
        }

    async def _record(
        self, turn: JourneyTurn, response: str, identity: Identity, session_id: str, message_id: str
    ) -> bool:
        """Have memory keep the message and its answer; return whether it has them."""
        at = current_time()
        said = [
            PendingMessage(id=message_id, role="customer", text=turn.dispatch["part"], at=at, channel_id=""),
            PendingMessage(
                id=derive_answer_id(message_id), role="agent", text=response, at=at, channel_id=""
            ),
        ]
        messages = [message for message in said if message["text"]]
        scope = Scope(identity.tenant, turn.contact_id)
        return not await record_messages(self._memory, scope, session_id, messages)

    async def _choose(
        self, journeys: Sequence[Journey], contact_id: str, message: str, session_id: str
    ) -> JourneyTurn | None:
        onboarding = next((each for each in journeys if each.graph == ONBOARDING.name), None)
        if onboarding and (question := await self._get_question(onboarding)):
            routing = None if parse_reply(message, question) else await self._route(message)
            if routing and self._is_other_matter(
                routing, message, is_elsewhere=onboarding.session_id not in {"", session_id}
            ):
                return None
            return _build_turn(ONBOARDING, onboarding, contact_id, message, routing)
        routing = await self._route(message)
        if routing is None or routing.verdict == "unknown":
            return None
        spec, journey = ONBOARDING, None
        if routing.route == ONBOARDING.name and routing.confidence >= _MIN_START_CONFIDENCE:
            journey = await self._find_onboarding(onboarding, contact_id)
        elif self._agents.specs[routing.route].category == SALES_CATEGORY:
            spec, journey = SALES, await self._find_sale(journeys, contact_id, message)
        return _build_turn(spec, journey, contact_id, message, routing) if journey else None

    async def _get_question(self, onboarding: Journey) -> Question | None:
        if not onboarding.is_waiting:
            return None
        state = await self._load_state(onboarding)
        return next((pending.value["question"] for pending in state.interrupts), None)

    async def _load_state(self, journey: Journey) -> StateSnapshot:
        config: RunnableConfig = {"configurable": {"thread_id": journey.thread_id}}
        return await self._graphs[journey.graph].aget_state(config)

    async def _route(self, message: str) -> Routing | None:
        try:
            return await self._agents.router.route(message)
        except EmbeddingError as error:
            log.warning("message_not_routed", reason=error.message)
            return None

    def _is_other_matter(self, routing: Routing, message: str, *, is_elsewhere: bool) -> bool:
        """Return whether the message raises a matter that the onboarding cannot answer.

        Args:
            routing: Where the message belongs by its words.
            message: The message, which is no plain reply to the onboarding's question.
            is_elsewhere: Whether it came in another session than the question.
        """
        spec = self._agents.specs[routing.route]
        if any(rule.applies_to(message) for rule in self._escalation_rules):
            return True
        if routing.route == ONBOARDING.name:
            return False
        if is_elsewhere:
            return True
        if routing.verdict == "unknown":
            return False
        is_question = message.rstrip().endswith("?")
        is_urgent = routing.verdict == "sure" and spec.category in _OTHER_MATTERS
        return (is_question or is_urgent) and len(message.split()) >= _MIN_MATTER_WORDS

    async def _find_onboarding(self, known: Journey | None, contact_id: str) -> Journey | None:
        """Return the onboarding to continue, or a new one for a contact the CRM knows nothing of yet."""
        if known:
            state = await self._load_state(known)
            return known if state.values.get("status") in {"paused", "in_progress"} else None
        try:
            with within(LOAD_SECONDS):
                profile = (await self._crm.get_contact(contact_id)).profile
        except CrmError as error:
            log.warning("onboarding_not_begun", reason=error.message)
            return None
        is_new = all(getattr(profile, name) is None for name in PROFILE)
        return _begin_journey(ONBOARDING, contact_id) if is_new else None

    async def _find_sale(self, journeys: Sequence[Journey], contact_id: str, message: str) -> Journey | None:
        """Return the sale of the contact's open deal; of several, the one named or last spoken about.

        There is none without a language model, which a sale needs, unless the customer plainly accepts; nor
        while a person decides on its offer.
        """
        if not self._models.info.is_language_model and not find_acceptance(message):
            return None
        try:
            with within(LOAD_SECONDS):
                found = await self._crm.list_opportunities(contact_id)
        except CrmError as error:
            log.warning("deals_not_listed", reason=error.message)
            return None
        deals = {deal.id: deal for deal in found if deal.stage not in CLOSED}
        sales = [each for each in journeys if each.graph == SALES.name and each.subject in deals]
        deal = _select_deal(list(deals.values()), sales, message)
        if deal is None:
            return None
        known = next((each for each in sales if each.subject == deal.id), None)
        sale = known or _begin_journey(SALES, deal.id)
        return None if sale.is_waiting else sale


def _build_turn(
    spec: GraphSpec, journey: Journey, contact_id: str, message: str, routing: Routing | None
) -> JourneyTurn:
    values = {"contact_id": contact_id, "message": message, spec.journey: journey.subject}
    return JourneyTurn(
        spec=spec,
        contact_id=contact_id,
        journey=journey,
        input=Command(resume={"reply": message}) if journey.is_waiting else spec.validate_input(values),
        dispatch=Dispatch(
            agent=spec.name,
            category=spec.name,
            confidence=routing.confidence if routing else 1.0,
            chosen="journey",
            part=message,
        ),
    )


def read_response(output: Mapping[str, Any]) -> str:
    """Return what the customer is told: of an onboarding the last message."""
    if "response" in output:
        return str(output["response"])
    last = output["messages"][-1]
    return last.text if isinstance(last, AIMessage) else ""


def read_handoff(output: Mapping[str, Any]) -> Handoff:
    """Return a journey's hand-off in the coordinator's form."""
    if handed_over := output.get("handed_over"):
        return Handoff(
            recommended=True, recorded=True, team=handed_over["team"], reason=handed_over["reason"]
        )
    handoff = output.get("handoff", {"required": False})
    if not handoff["required"]:
        return NO_HANDOFF
    is_recorded = not any(change.startswith("handoff ") for change in output["unsaved"])
    return Handoff(
        recommended=True, recorded=is_recorded, team=handoff["team"] or "", reason=handoff["reason"]
    )


def _begin_journey(spec: GraphSpec, subject: str) -> Journey:
    """Return a journey that has not begun, on a new thread."""
    return Journey(
        graph=spec.name, subject=subject, thread_id=new_thread_id(), session_id="", is_waiting=False
    )


def _select_deal(deals: Sequence[Opportunity], sales: Sequence[Journey], message: str) -> Opportunity | None:
    if len(deals) == 1:
        return deals[0]
    folded = message.casefold()
    named = [deal for deal in deals if deal.id.casefold() in folded or deal.title.casefold() in folded]
    if len(named) == 1:
        return named[0]
    return next((deal for deal in deals if sales and deal.id == sales[0].subject), None)
