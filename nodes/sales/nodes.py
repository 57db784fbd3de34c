"""The nodes of the sales graph."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from core.context import Context
from core.errors import CrmError, CrmRefused, InvalidRequest, ModelError, ModelRefused, NotFound
from core.logging import get_logger
from core.texts import detect_language, fence, make_storable
from nodes.deps import Deps, get_run_context, get_thread_id
from nodes.hierarchical.results import build_progress_message, is_anything_done
from nodes.hierarchical.state import HierarchicalInput, HierarchicalOutput
from nodes.hierarchical.state import Reason as TeamReason
from nodes.sales.changes import (
    Offer,
    add_stage,
    apply_changes,
    build_words_hand_over,
    choose_default_action,
    collect_facts,
    decide_closing,
    drop_unsupported,
    extract_offer,
    find_concession,
    plan_follow_up,
    plan_hand_over,
    reject_offer,
    shorten,
)
from nodes.sales.deal import (
    NOTED,
    build_background,
    build_task,
    choose_fixed_reply,
    describe_deal,
    describe_effects,
    describe_run,
    drop_outdated_stage,
    write_changes,
)
from nodes.sales.evidence import Evidence, find_acceptance
from nodes.sales.stages import (
    CLOSED,
    build_stage_views,
    collect_results,
    conclude_stages,
    summarise_deal,
)
from nodes.sales.state import Deal, DealReading, PendingOffer, Reason, SalesState, Writes
from nodes.shared.contact import load_contact_profile
from nodes.shared.context import reset_context
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_structured, ask_text, has_language_model
from tools.approval import ApprovalDecision, ApprovalRequest, build_decision_schema
from tools.crm.models import Opportunity

log = get_logger(__name__)

# The hierarchical graph with one sub-agent per stage, as a subgraph of the run that calls it.
Team: TypeAlias = Callable[[HierarchicalInput], Awaitable[HierarchicalOutput]]

# The reading extracts and invents nothing.
READING_TEMPERATURE = 0.1
# Some freedom to phrase what is recorded.
REPLY_TEMPERATURE = 0.3
# What the customer said while no run could read it; the last words count most.
_UNREAD_CHARACTERS = 12_000
_NO_WORDS = "The customer has said nothing new, so neither agreed nor declined."
_TEAM_REASONS: Mapping[TeamReason, Reason] = {
    "model_refused": "model_refused",
    "model_unavailable": "model_unavailable",
    "decision_unreadable": "model_reply_unreadable",
    "decomposition_invalid": "model_reply_unreadable",
    "needs_model": "needs_model",
}


class SalesNodes:
    """The nodes of the sales graph.

    Args:
        deps: The model and the CRM.
        team: Works on the stages of the deal.
    """

    def __init__(self, deps: Deps, team: Team) -> None:
        self._deps = deps
        self._team = team
        self._reading_prompt = load_prompt("sales_read_results")
        self._reply_prompt = load_prompt("sales_reply")

    async def open_deal(
        self, state: SalesState, *, runtime: Runtime[Context]
    ) -> Command[Literal["assess", "finish"]]:
        """Open the turn: read the deal from the CRM, and write what the last run could not.

        A closed deal ends the run at once. The customer's words stay on the thread until a run has read them
        into the deal, so that nothing is lost when the CRM or the model is unavailable.

        Raises:
            NotFound: The contact or the opportunity does not exist, or the opportunity is another contact's.
            InvalidRequest: The thread is about another deal.
        """
        deal = Deal(contact_id=state["contact_id"], opportunity_id=state["opportunity_id"])
        _require_same_deal(state.get("deal"), deal)
        update = _open_turn(state, deal)
        try:
            opportunity = await self._load_opportunity(deal)
            contact = await load_contact_profile(self._deps, deal["contact_id"])
        except CrmError as error:
            return _end("crm_unavailable", {**update, "notes": [error.message]})
        update |= {"opportunity": opportunity.model_dump(), "contact": contact}
        if unsaved := state.get("unsaved"):
            result = await write_changes(
                self._deps.crm,
                deal,
                drop_outdated_stage(unsaved, opportunity),
                thread_id=get_thread_id(runtime),
            )
            opportunity = result.opportunity or opportunity
            update |= {
                "opportunity": opportunity.model_dump(),
                "unsaved": result.unsaved,
                "refusals": result.refusals,
            }
            if result.unsaved:
                return _end("crm_unavailable", {**update, "notes": [result.fault]})
        if opportunity.stage in CLOSED:
            # Nobody will read the words into a deal that accepts no more changes.
            return _end("already_closed", {**update, "unread": ""})
        return Command(goto="assess", update=update)

    async def assess(self, state: SalesState) -> dict[str, Any]:
        """Record each stage's status before anybody works on it."""
        opportunity = Opportunity.model_validate(state["opportunity"])
        views = build_stage_views(opportunity, state["achieved"])
        return {**summarise_deal(opportunity), "stages_before": views, "stages": views}

    async def work_stages(
        self, state: SalesState, *, runtime: Runtime[Context]
    ) -> Command[Literal["read_results", "record", "finish"]]:
        """Give the deal to the team; when none of its work is done, the deal stays as it is.

        Without a language model a person gets what the customer said.
        """
        if not has_language_model(self._deps.models, get_run_context(runtime).model):
            return _hand_over_words(state)
        task = HierarchicalInput(
            task=build_task(state), contact_id=state["contact_id"], background=build_background(state)
        )
        try:
            output = await self._team(task)
        except ModelRefused as refusal:
            return _end_work("model_refused", refusal.message)
        except ModelError as error:
            return _end_work("model_unavailable", error.message)
        if not is_anything_done(output["subtasks"]):
            team_reason = output["reason"]
            reason = _TEAM_REASONS.get(team_reason, "stages_failed") if team_reason else "stages_failed"
            return _end_work(reason, output["result"], subtasks=output["subtasks"])
        return Command(goto="read_results", update={"subtasks": output["subtasks"]})

    async def read_results(
        self, state: SalesState, *, runtime: Runtime[Context]
    ) -> Command[Literal["approve", "record", "finish"]]:
        """Read what is new about the deal; an offer that gives money away goes to a person first.

        If the results cannot be read, the deal and the customer's words stay for the next run.
        """
        context = get_run_context(runtime)
        words = state["unread"]
        words_text = f"What the customer said:\n{fence('customer', words)}" if words else _NO_WORDS
        try:
            reading = await ask_structured(
                self._deps.models,
                [
                    SystemMessage(add_locale(self._reading_prompt, context.locale)),
                    HumanMessage(f"[The deal, on {state['today']}]\n{describe_deal(state)}"),
                    build_progress_message(state["subtasks"]),
                    HumanMessage(f"[Reading] {words_text}\nWhat is new about the deal?"),
                ],
                DealReading,
                temperature=READING_TEMPERATURE,
                model=context.model,
            )
        except ModelRefused as refusal:
            return _end("model_refused", {"notes": [refusal.message], "unread": ""})
        except ModelError as error:
            return _end("model_unavailable", {"notes": [error.message]})
        if reading is None:
            note = "What the sub-agents brought could not be read."
            return _end("model_reply_unreadable", {"notes": [note]})
        update = build_reading_update(state, reading)
        return Command(goto="approve" if update["pending_offer"] else "record", update=update)

    async def approve(self, state: SalesState) -> dict[str, Any]:
        """Wait for a person's decision on an offer that gives, or may give, money away.

        A rejected offer leaves proposal, terms and value as they are.
        """
        pending, writes = state["pending_offer"], state["unsaved"]
        if pending is None or writes is None:
            return {}
        request = ApprovalRequest(
            tool="update_opportunity",
            arguments={"opportunity_id": state["opportunity_id"], **pending["offer"]},
            reason=pending["reason"],
            contact_id=state["contact_id"],
        )
        decision: ApprovalDecision = interrupt(
            request.model_dump(), response_schema=build_decision_schema(Offer)
        )
        if decision.decision == "reject":
            return reject_offer(writes, decision.reason)
        before, edited = Opportunity.model_validate(state["opportunity"]), decision.arguments
        offer = edited if isinstance(edited, Offer) else Offer.model_validate(pending["offer"])
        changes = add_stage(before, {**(writes["opportunity"] or {}), **offer.get_changes(before)})
        changes["next_action"] = (
            pending["next_action"] if edited is None else "Tell the customer the offer as it was approved"
        )
        return {"unsaved": Writes({**writes, "opportunity": changes}), "pending_offer": None}

    async def record(self, state: SalesState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Write the changes to the CRM, once; what cannot be written stays for the next run."""
        writes = state["unsaved"]
        if writes is None:
            return {}
        result = await write_changes(self._deps.crm, state["deal"], writes, thread_id=get_thread_id(runtime))
        opportunity = result.opportunity or Opportunity.model_validate(state["opportunity"])
        reason = state["reason"]
        if result.unsaved:
            reason = "crm_unavailable"
        elif result.refusals:
            reason = "closed_meanwhile" if opportunity.stage in CLOSED else "crm_refused"
        is_handed_over = writes["hand_over"] and not (
            (result.unsaved and result.unsaved["hand_over"])
            or any(refusal.startswith("hand_over") for refusal in result.refusals)
        )
        return {
            "unsaved": result.unsaved,
            "handed_over": writes["hand_over"] if is_handed_over else None,
            "opportunity": opportunity.model_dump(),
            "refusals": [*state["refusals"], *result.refusals],
            "notes": [*state["notes"], *describe_effects(writes, result), *filter(None, [result.fault])],
            "reason": reason,
        }

    async def reply(self, state: SalesState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Word what the customer is told, from the deal as it is recorded now."""
        if not state["said"]:
            return {}
        context = get_run_context(runtime)
        language = detect_language(state["said"], context.locale)
        opportunity = Opportunity.model_validate(state["opportunity"])
        if text := choose_fixed_reply(opportunity, state["reason"], state["handed_over"], language):
            return {"response": text}
        messages: list[AnyMessage] = [
            SystemMessage(add_locale(self._reply_prompt, context.locale)),
            HumanMessage(f"[The deal, on {state['today']}]\n{describe_deal(state)}"),
            build_progress_message(state["subtasks"]),
            HumanMessage(f"[Answer] What the customer said:\n{fence('customer', state['said'])}"),
        ]
        try:
            text = await ask_text(
                self._deps.models, messages, temperature=REPLY_TEMPERATURE, model=context.model
            )
        except ModelError as error:
            log.warning("sales_reply_not_written", reason=error.message)
            text = ""
        return {"response": text or NOTED[language]}

    async def finish(self, state: SalesState) -> dict[str, Any]:
        """Close the turn: the state of the deal becomes the thread's last message."""
        if state["opportunity"] is None:
            return {"success": False, "messages": [AIMessage("\n".join(describe_run(state, None)))]}
        opportunity = Opportunity.model_validate(state["opportunity"])
        achieved, views = conclude_stages(
            opportunity, state["subtasks"], state["stages_before"], state["achieved"]
        )
        return {
            **summarise_deal(opportunity),
            "achieved": achieved,
            "stages": views,
            "success": state["reason"] is None,
            "messages": [AIMessage("\n".join(describe_run(state, opportunity)))],
        }

    async def _load_opportunity(self, deal: Deal) -> Opportunity:
        try:
            return await self._deps.crm.get_opportunity(deal["contact_id"], deal["opportunity_id"])
        except CrmRefused as refusal:
            raise NotFound(
                f"the CRM knows no opportunity {deal['opportunity_id']!r} of contact {deal['contact_id']!r}",
                details={**deal},
            ) from refusal


def build_reading_update(state: SalesState, reading: DealReading) -> dict[str, Any]:
    """Return the update: what is to be written, what waits for a person, and what was not accepted."""
    before, words = Opportunity.model_validate(state["opportunity"]), state["unread"]
    reading, unsupported = drop_unsupported(before, reading, _collect_evidence(state))
    offer = extract_offer(before, reading)
    closing, doubt = decide_closing(before, reading, words, has_new_offer=offer is not None)
    if closing:
        offer = None
    concession = find_concession(before, offer) if offer else None
    offered = offer.get_changes(before) if offer and not concession else {}
    changes = add_stage(before, {**collect_facts(before, reading), **closing, **offered})
    if doubt:
        action = "Ask the customer to say plainly whether they agree to the proposal"
    else:
        action = shorten(reading.next_action) or choose_default_action(apply_changes(before, changes))
    follow_up = None
    if changes.get("stage") not in CLOSED:
        follow_up = plan_follow_up(before, reading, words, today=state["today"], action=action)
    hand_over = plan_hand_over(before, reading, action=action)
    # The next action may promise what is not approved yet.
    is_action_new = action != before.next_action and not concession
    notes = [doubt]
    if reading.value is not None and reading.value != (offer.value if offer else before.value):
        notes.append(
            f"The value {reading.value:,.2f} was not taken over: neither proposal nor terms name it."
        )
    if unsupported:
        notes.append(f"Not taken over, as nothing supports it: {', '.join(unsupported)}.")
    return {
        "unsaved": Writes(
            turn=state["turn"],
            stage_before=before.stage,
            opportunity={**changes, **({"next_action": action} if is_action_new else {})} or None,
            follow_up=follow_up,
            hand_over=hand_over,
        ),
        "pending_offer": PendingOffer(offer=offer.model_dump(), reason=concession, next_action=action)
        if offer and concession
        else None,
        "notes": list(filter(None, notes)),
        "unread": "",
        "reason": None if changes or concession or follow_up or hand_over else "no_progress",
    }


def _collect_evidence(state: SalesState) -> Evidence:
    spoken = [message.text for message in state["messages"] if message.type == "human"]
    customer_words = "\n".join([*spoken, state["unread"]])
    return Evidence(customer_words=customer_words, results=collect_results(state["subtasks"]))


def _open_turn(state: SalesState, deal: Deal) -> dict[str, Any]:
    """Return the update that opens a turn and clears the last run's results."""
    message = make_storable(state.get("message") or "").strip()
    unread = "\n".join(filter(None, (state.get("unread", ""), message)))
    return {
        **reset_context(),
        "messages": [HumanMessage(message, id=str(uuid4()))] if message else [],
        "deal": deal,
        # Moved to ``unread``, so that no later run reads it again.
        "message": "",
        "unread": unread[-_UNREAD_CHARACTERS:],
        "turn": str(uuid4()),
        "today": datetime.now(UTC).date().isoformat(),
        "opportunity": None,
        "contact": None,
        "unsaved": state.get("unsaved"),
        "achieved": state.get("achieved", []),
        "stages_before": [],
        "subtasks": [],
        "pending_offer": None,
        "refusals": [],
        "notes": [],
        "said": message,
        "response": "",
        "handed_over": None,
        "closed": False,
        "deal_value": 0.0,
        "stage": None,
        "next_action": "",
        "qualification": {},
        "stages": [],
        "success": False,
        "reason": None,
    }


def _require_same_deal(known: Deal | None, deal: Deal) -> None:
    if known is not None and known != deal:
        raise InvalidRequest(
            f"the thread is about opportunity {known['opportunity_id']!r} of contact "
            f"{known['contact_id']!r}; begin another thread for another deal",
            details={**known},
        )


def _end(reason: Reason, update: Mapping[str, Any]) -> Command[Any]:
    return Command(goto="finish", update={**update, "reason": reason})


def _hand_over_words(state: SalesState) -> Command[Any]:
    """Return the step that hands the customer's words to a person; without words the run only ends.

    A plain acceptance of the proposal needs no judgement: it closes the deal.
    """
    words = state["unread"]
    if not words:
        return _end("needs_model", {})
    before = Opportunity.model_validate(state["opportunity"])
    accepted = DealReading(why="", agreement=find_acceptance(words))
    closing, _ = decide_closing(before, accepted, words, has_new_offer=False)
    writes = Writes(
        turn=state["turn"],
        stage_before=before.stage,
        opportunity=closing or None,
        follow_up=None,
        hand_over=None if closing else build_words_hand_over(before, words),
    )
    reason = None if closing else "needs_model"
    return Command(goto="record", update={"unsaved": writes, "unread": "", "reason": reason})


def _end_work(reason: Reason, note: str, **update: Any) -> Command[Any]:
    # Words that the provider declined to process would be declined each time again.
    unread = {"unread": ""} if reason == "model_refused" else {}
    return _end(reason, {**update, **unread, "notes": [note]})
