"""The deal in words, for prompts and for the thread, and a run's changes to it in the CRM."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from string import Template
from typing import Any, Final, Literal, TypeAlias

from core.errors import CrmError, CrmRefused
from core.teams import format_handed_over, name_team
from core.texts import Language, cut, fence, join_lines
from nodes.sales.stages import CLOSED, SUMMARY_CHARACTERS
from nodes.sales.state import Deal, HandOver, Reason, SalesState, Writes
from nodes.shared.conversation import select_spoken
from nodes.shared.prompts import load_prompt
from tools.crm.client import CrmClient
from tools.crm.models import Opportunity, OpportunityChanges
from tools.execution import derive_idempotency_key

HISTORY_MESSAGES = 20
# Together these stay below the limit of a background.
_DEAL_CHARACTERS = 12_000
_CONTACT_CHARACTERS = 5_000
_CONVERSATION_CHARACTERS = 9_000
_BACKGROUND_CHARACTERS = 10_000
_TURN_CHARACTERS = 1_500
_MESSAGE_CHARACTERS = 12_000
_BOOKKEEPING_FIELDS = frozenset({"version", "created_at", "updated_at", "contact_id"})
_NOTHING_NEW = "The customer has said nothing new. See what the company can do for the deal by itself."
_REASON_TEXTS: Mapping[Reason, str] = {
    "already_closed": "The deal is closed already; nothing was done.",
    "closed_meanwhile": "The deal was closed meanwhile; what this run found was not recorded.",
    "terms_rejected": "The offer was not approved and is not recorded.",
    "no_progress": "Nothing new came to light; the deal stands where it stood.",
    "stages_failed": "The sub-agents could not do their work; the deal is as it was.",
    "model_refused": "The model's provider declined to answer; the deal is as it was.",
    "model_unavailable": "The model did not answer; the deal is as it was, and the next run goes on.",
    "model_reply_unreadable": "The model's replies could not be read; the deal is as it was.",
    "needs_model": "No language model is configured to work on the deal; it is as it was.",
    "crm_refused": "The CRM did not take all of it.",
    "crm_unavailable": "The CRM did not answer; what is not saved is kept for the next run.",
}


def describe_deal(state: SalesState) -> str:
    """Return the opportunity for a prompt, without what is not known."""
    opportunity = state["opportunity"] or {}
    known = {name: value for name, value in opportunity.items() if value and name not in _BOOKKEEPING_FIELDS}
    return fence("deal", cut(_to_json(known), _DEAL_CHARACTERS))


def build_task(state: SalesState) -> str:
    """Return the team's task: the customer's words and the stages of the deal."""
    stages = "\n".join(
        f"- {stage['name']}: {stage['status']} ({cut(join_lines(stage['summary']), SUMMARY_CHARACTERS)})"
        for stage in state["stages_before"]
    )
    words = state["unread"]
    words_text = fence("customer", cut(words, _MESSAGE_CHARACTERS)) if words else _NOTHING_NEW
    return Template(load_prompt("sales_task")).substitute(said=words_text, stages=stages)


def build_background(state: SalesState) -> str:
    """Return the background of all work on the deal: the deal, the contact and the conversation."""
    turns = [
        f"{'customer' if message.type == 'human' else 'company'}: "
        f"{cut(join_lines(message.text), _TURN_CHARACTERS)}"
        for message in select_spoken(state["messages"], HISTORY_MESSAGES)
    ]
    deal = Template(load_prompt("sales_background")).substitute(
        deal=describe_deal(state),
        contact=fence("contact", cut(_to_json(state["contact"]), _CONTACT_CHARACTERS)),
        talk=fence("talk", "\n".join(turns)[-_CONVERSATION_CHARACTERS:]),
    )
    return "\n\n".join(filter(None, (deal, cut(state["background"], _BACKGROUND_CHARACTERS))))


def describe_run(state: SalesState, opportunity: Opportunity | None) -> Iterator[str]:
    """Yield the lines of the thread's last message: how the run ended and the state of the deal."""
    if reason := state["reason"]:
        yield _REASON_TEXTS[reason]
    if opportunity:
        value = f"{opportunity.value:,.2f} {opportunity.currency}"
        yield f"{opportunity.title}: {opportunity.stage}, {value}."
        if opportunity.next_action and opportunity.stage not in CLOSED:
            yield f"Next: {opportunity.next_action}"
    yield from state["notes"]
    for refusal in state["refusals"]:
        yield f"The CRM did not take {refusal}"
    if unsaved := state["unsaved"]:
        parts = [part for part in ("opportunity", "follow_up", "hand_over") if unsaved[part]]
        yield f"Not saved yet: {', '.join(parts)}; the next run on this thread saves it."


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


# What a customer is told without a model.
_CLOSED_WON: Mapping[Language, str] = {
    "en": "Thank you! I have recorded that you accept the proposal. Our {team} team takes the next steps.",
    "pt": "Obrigado! Registrei que você aceita a proposta. Nossa equipe de {team} cuida dos próximos passos.",
    "es": "¡Gracias! Queda registrado que la acepta. Nuestro equipo de {team} se ocupa de lo que sigue.",
}
_CLOSED_LOST: Mapping[Language, str] = {
    "en": "Thank you for telling us. I have recorded your decision, and you can write to us at any time.",
    "pt": "Obrigado por nos avisar. Registrei a sua decisão, e você pode escrever quando quiser.",
    "es": "Gracias por avisarnos. He registrado su decisión, y puede escribirnos cuando quiera.",
}
NOTED: Mapping[Language, str] = {
    "en": "Thank you, I have noted that.",
    "pt": "Obrigado, anotei isso.",
    "es": "Gracias, lo he anotado.",
}
_TEAM: Final = "sales"


def choose_fixed_reply(
    opportunity: Opportunity, reason: Reason | None, handed_over: HandOver | None, language: Language
) -> str:
    """Return the fixed text for the customer; empty where a model words the reply.

    Args:
        opportunity: The deal as it is recorded.
        reason: Why the run failed, if it did.
        handed_over: The hand-over that was recorded, if one was.
        language: The customer's language.
    """
    if opportunity.stage in CLOSED and reason is None:
        texts = _CLOSED_WON if opportunity.stage == "closed_won" else _CLOSED_LOST
        return texts[language].format(team=name_team(_TEAM, language))
    if handed_over:
        return format_handed_over(handed_over["team"], language)
    return ""


Part: TypeAlias = Literal["opportunity", "follow_up", "hand_over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The outcome of writing to the CRM.

    Attributes:
        opportunity: As the CRM returned it; ``None`` if it was not asked or did not answer.
        unsaved: What is still to be written; ``None``: nothing.
        refusals: What the CRM rejected, in words; it is not tried again.
        fault: Why something is unsaved; empty if nothing is.
    """

    opportunity: Opportunity | None
    unsaved: Writes | None
    refusals: list[str]
    fault: str


async def write_changes(crm: CrmClient, deal: Deal, writes: Writes, *, thread_id: str) -> WriteResult:
    """Write each part once: its key is derived from the thread, the run it is from, and its content."""
    unsaved: Writes = {**writes}
    refusals: list[str] = []
    opportunity: Opportunity | None = None
    try:
        for part, write in _WRITERS.items():
            if content := unsaved[part]:
                key = derive_idempotency_key(
                    thread_id, writes["turn"], f"{part} {json.dumps(content, sort_keys=True)}"
                )
                try:
                    opportunity = await write(crm, deal, content, key) or opportunity
                except CrmRefused as refusal:
                    refusals.append(f"{part}: {refusal.message}")
            unsaved[part] = None
        if refusals:
            opportunity = await crm.get_opportunity(deal["contact_id"], deal["opportunity_id"])
    except CrmError as error:
        if any(unsaved[part] for part in _WRITERS):
            return WriteResult(
                opportunity=opportunity, unsaved=unsaved, refusals=refusals, fault=error.message
            )
    return WriteResult(opportunity=opportunity, unsaved=None, refusals=refusals, fault="")


def drop_outdated_stage(writes: Writes, opportunity: Opportunity) -> Writes:
    """Return an earlier run's writes, without the stage if somebody has moved the deal since."""
    changes = writes["opportunity"]
    if not changes or opportunity.stage == writes["stage_before"] or changes.get("stage") in CLOSED:
        return writes
    return {**writes, "opportunity": {name: changes[name] for name in changes if name != "stage"}}


async def _write_opportunity(crm: CrmClient, deal: Deal, content: Mapping[str, Any], key: str) -> Opportunity:
    changes = OpportunityChanges.model_validate(content)
    return await crm.update_opportunity(deal["contact_id"], deal["opportunity_id"], changes, key=key)


async def _write_follow_up(crm: CrmClient, deal: Deal, content: Mapping[str, Any], key: str) -> None:
    await crm.schedule_follow_up(
        deal["contact_id"],
        due_at=content["due_at"],
        subject=content["subject"],
        note=content["note"],
        opportunity_id=deal["opportunity_id"],
        key=key,
    )


async def _write_hand_over(crm: CrmClient, deal: Deal, content: Mapping[str, Any], key: str) -> None:
    await crm.hand_over(
        deal["contact_id"],
        team=content["team"],
        reason=content["reason"],
        summary=content["summary"],
        key=key,
    )


_Writer: TypeAlias = Callable[[CrmClient, Deal, Mapping[str, Any], str], Awaitable[Opportunity | None]]
_WRITERS: Mapping[Part, _Writer] = {
    "opportunity": _write_opportunity,
    "follow_up": _write_follow_up,
    "hand_over": _write_hand_over,
}


def describe_effects(writes: Writes, result: WriteResult) -> Iterator[str]:
    """Yield what was done beside changing the opportunity."""
    undone = {part for part in ("follow_up", "hand_over") if result.unsaved and result.unsaved[part]}
    undone |= {refusal.partition(":")[0] for refusal in result.refusals}
    if (follow_up := writes["follow_up"]) and "follow_up" not in undone:
        yield f"A follow-up is scheduled for {follow_up['due_at'][:10]}."
    if (hand_over := writes["hand_over"]) and "hand_over" not in undone:
        yield f"Handed over to {hand_over['team']}: {hand_over['reason']}"
