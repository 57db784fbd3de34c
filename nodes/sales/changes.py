"""What a reading changes in the deal, as far as there is evidence for it, and what it offers the customer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.customer_text import SendableText
from core.texts import make_storable
from nodes.sales.evidence import Evidence, find_amounts, is_agreement, is_refusal, names_value
from nodes.sales.stages import CLOSED, QUALIFICATION, can_close, choose_next_stage, find_missing
from nodes.sales.state import (
    LONG_CHARACTERS,
    MAX_LISTED,
    MAX_VALUE,
    SHORT_CHARACTERS,
    DealReading,
    FollowUpPlan,
    HandOver,
    ObjectionReading,
    PersonNeeded,
    StageName,
    Writes,
)
from tools.approval import assess_message_risk
from tools.crm.models import Objection, Opportunity

# When the customer asks for time and names no day.
FOLLOW_UP_DAYS = 7
_MAX_FOLLOW_UP_DAYS = 730
_FOLLOW_UP_TIME = time(9, tzinfo=UTC)
_HAND_OVER_TEAM = "sales"
_TITLE_CHARACTERS = 150
# Fields that must be the result of their own stage's work.
_RESULT_FIELDS: Mapping[str, StageName] = {
    "solution": "solution",
    "proposal": "proposal",
    "terms": "negotiation",
}
_PERSON_NEEDED: Mapping[PersonNeeded, str] = {
    "customer_asks": "the customer asks for a person",
    "legal": "a legal question",
    "security": "a security or privacy review",
    "beyond_product": "a promise beyond the product",
}
# Words that give money away, beside those that make a message one of high risk.
_CONCESSION = re.compile(
    r"%|\b(per\s?cent|off|free|rebate|credit|cashback|bonus|cheaper|reduc\w+|gr[aá]tis|abatimento|por\s+cento)\b",
    re.IGNORECASE,
)


def shorten(text: str, limit: int = SHORT_CHARACTERS) -> str:
    """Return the text as a field of the CRM with this limit can store it."""
    return make_storable(text).strip()[:limit].strip()


def drop_unsupported(
    before: Opportunity, reading: DealReading, evidence: Evidence
) -> tuple[DealReading, list[str]]:
    """Return the reading without what no evidence supports.

    Facts about the customer need their own words, or a sub-agent's; a solution, an answer to an objection, a
    proposal and terms must be the result of their own stage in this run.

    Returns:
        The reading, and the names of the fields that lost something.
    """
    changed: dict[str, Any] = {}
    for name in QUALIFICATION:
        text, known = getattr(reading, name), getattr(before.qualification, name)
        if text and text != known and not evidence.supports(text):
            changed[name] = ""
    for name, stage in _RESULT_FIELDS.items():
        text = shorten(getattr(reading, name), LONG_CHARACTERS)
        if text and text != getattr(before, name) and not evidence.is_result_of(stage, text):
            changed[name] = ""
    needs = [need for need in reading.needs if evidence.supports(need)]
    objections = _select_raised(reading.objections, before, evidence)
    if needs != reading.needs:
        changed["needs"] = needs
    if objections != reading.objections:
        changed["objections"] = objections
    return reading.model_copy(update=changed), list(changed)


def collect_facts(before: Opportunity, reading: DealReading) -> dict[str, Any]:
    """Return the changes by what became known of the customer and was worked out for them."""
    qualification = {
        name: text
        for name in QUALIFICATION
        # A part of the known text says less, not more.
        if (text := shorten(getattr(reading, name))).casefold()
        not in (getattr(before.qualification, name) or "").casefold()
    }
    needs = _add_needs(before.needs, reading.needs)
    objections = _merge_objections(before.objections, reading.objections)
    solution = shorten(reading.solution, LONG_CHARACTERS)
    changes: dict[str, Any] = {}
    if qualification:
        changes["qualification"] = qualification
    if needs != before.needs:
        changes["needs"] = needs
    if solution and solution != before.solution:
        changes["solution"] = solution
    if objections != before.objections:
        changes["objections"] = [each.model_dump() for each in objections]
    return changes


def decide_closing(
    before: Opportunity, reading: DealReading, words: str, *, has_new_offer: bool
) -> tuple[dict[str, Any], str]:
    """Close the deal if the customer said so.

    Args:
        before: As the CRM holds it: a customer can agree only to what was there when they spoke.
        reading: With the customer's sentences.
        words: What the customer said.
        has_new_offer: Whether the reading changes the proposal, the terms or the value.

    Returns:
        The changes that close it, empty if it stays open; and why a closing in the reading was not accepted.
    """
    agreement, refusal = reading.agreement.strip(), reading.refusal.strip()
    if not agreement and not refusal:
        return {}, ""
    if agreement and refusal:
        return {}, "The customer was read as agreeing and declining at once: ask which it is."
    if refusal:
        if not is_refusal(words, refusal):
            return {}, "The customer's own words do not say that they decline."
        return {"stage": "closed_lost", "close_reason": shorten(refusal)}, ""
    if doubt := _doubt_agreement(before, agreement, words, has_new_offer=has_new_offer):
        return {}, f"The deal was not closed: {doubt}"
    return {"stage": "closed_won", "close_reason": shorten(agreement)}, ""


def _doubt_agreement(before: Opportunity, agreement: str, words: str, *, has_new_offer: bool) -> str:
    """Return why an agreement does not close the deal; empty when it does."""
    if has_new_offer:
        return "its offer changes in this run and needs a new agreement."
    if not can_close(before):
        return "it has no proposal without open objections to agree to."
    if not is_agreement(words, agreement):
        return "the customer has not agreed explicitly and without conditions."
    return ""


def add_stage(before: Opportunity, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes with the stage that they bring an open deal to."""
    if changes.get("stage") in CLOSED:
        return dict(changes)
    stage = choose_next_stage(before, apply_changes(before, changes))
    others = {name: value for name, value in changes.items() if name != "stage"}
    return {**others, "stage": stage} if stage != before.stage else others


def apply_changes(before: Opportunity, changes: Mapping[str, Any]) -> Opportunity:
    """Return the opportunity as it would be with the changes."""
    known = before.model_dump()
    qualification = {**known["qualification"], **changes.get("qualification", {})}
    return Opportunity.model_validate({**known, **changes, "qualification": qualification})


def choose_default_action(after: Opportunity) -> str:
    """Return the next action when the reading names none: what the first open stage lacks."""
    if after.stage == "closed_won":
        return "Deliver what was agreed"
    if after.stage == "closed_lost":
        return "Nothing: the deal is lost"
    missing = next(iter(find_missing(after).items()), None)
    return f"Go on with {missing[0]}: {missing[1]}"[:500] if missing else "Ask the customer to agree"


def plan_follow_up(
    before: Opportunity, reading: DealReading, words: str, *, today: str, action: str
) -> FollowUpPlan | None:
    """Plan a follow-up on the day the customer named, or in a week if they are not ready; ``None``: no need.

    Without new words there is none: earlier words were planned for when they were said.
    """
    if not words:
        return None
    now = date.fromisoformat(today)
    day = _parse_day(reading.follow_up_on, now)
    if day is None and not reading.not_ready:
        return None
    due_at = datetime.combine(day or now + timedelta(days=FOLLOW_UP_DAYS), _FOLLOW_UP_TIME)
    return FollowUpPlan(
        due_at=due_at.isoformat(), subject=f"Follow up: {before.title[:_TITLE_CHARACTERS]}", note=action
    )


def plan_hand_over(before: Opportunity, reading: DealReading, *, action: str) -> HandOver | None:
    """Plan a handover if the reading says that a person is needed; ``None``: nobody is."""
    if reading.needs_person == "no":
        return None
    value = f"{before.value:,.2f} {before.currency}"
    summary = (
        f"{before.title} ({before.id}), {value}, in {before.stage}. {shorten(reading.why)} Next: {action}"
    )
    return HandOver(team=_HAND_OVER_TEAM, reason=_PERSON_NEEDED[reading.needs_person], summary=summary)


def build_words_hand_over(before: Opportunity, words: str) -> HandOver:
    """Return a handover of what the customer said, for a person to work on."""
    summary = f"{before.title} ({before.id}), in {before.stage}. The customer said: {shorten(words)}"
    return HandOver(team=_HAND_OVER_TEAM, reason="The customer wrote about the deal", summary=summary)


def _select_raised(
    objections: Sequence[ObjectionReading], before: Opportunity, evidence: Evidence
) -> list[ObjectionReading]:
    """Return the objections that were raised; an answer nobody worked out in this run is taken out."""
    known = {each.text.casefold(): each.answer for each in before.objections}
    return [
        each
        if each.answer in {"", known.get(shorten(each.text).casefold())}
        or evidence.is_result_of("objections", each.answer)
        else each.model_copy(update={"answer": ""})
        for each in objections
        if shorten(each.text).casefold() in known or evidence.supports(each.text)
    ]


def _add_needs(known: list[str], needs: list[str]) -> list[str]:
    """Return the known needs and the new ones; another case does not make a need new."""
    folded = {need.casefold() for need in known}
    new = {need.casefold(): need for need in map(shorten, needs) if need and need.casefold() not in folded}
    return [*known, *new.values()][:MAX_LISTED]


def _merge_objections(known: list[Objection], objections: Sequence[ObjectionReading]) -> list[Objection]:
    """Return the known objections with new answers, then the new ones; an answer is never taken back."""
    by_text = {each.text.casefold(): each for each in known}
    for objection in objections:
        text, answer = shorten(objection.text), shorten(objection.answer)
        if earlier := by_text.get(text.casefold()):
            by_text[text.casefold()] = Objection(text=earlier.text, answer=answer or earlier.answer)
        elif text:
            by_text[text.casefold()] = Objection(text=text, answer=answer or None)
    return list(by_text.values())[:MAX_LISTED]


def _parse_day(text: str, now: date) -> date | None:
    """Return the day if the text is one and it lies ahead."""
    try:
        day = date.fromisoformat(text.strip()[:10])
    except ValueError:
        return None
    return day if now < day <= now + timedelta(days=_MAX_FOLLOW_UP_DAYS) else None


class Offer(BaseModel):
    """The proposal, terms and value of a deal as they would be recorded."""

    model_config = ConfigDict(extra="forbid")

    proposal: SendableText = Field(
        "", max_length=LONG_CHARACTERS, description="The proposal; empty: unchanged"
    )
    terms: SendableText = Field("", max_length=LONG_CHARACTERS, description="The terms; empty: unchanged")
    value: float = Field(
        ge=0, le=MAX_VALUE, allow_inf_nan=False, description="The deal's worth in its currency"
    )
    discount_percent: float = Field(0, ge=0, le=100, description="Discount on the price, in percent")

    def get_changes(self, before: Opportunity) -> dict[str, Any]:
        """Return the fields of the opportunity that the offer changes."""
        fields = {"proposal": self.proposal, "terms": self.terms, "value": round(self.value, 2)}
        return {
            name: value
            for name, value in fields.items()
            if value != getattr(before, name) and (name == "value" or value)
        }


def extract_offer(before: Opportunity, reading: DealReading) -> Offer | None:
    """Return the offer in a reading; ``None`` when it leaves proposal, terms and value unchanged.

    The value is the CRM's, unless the proposal or the terms name the new one.
    """
    proposal, terms = (shorten(text, LONG_CHARACTERS) for text in (reading.proposal, reading.terms))
    offer = Offer(
        proposal="" if proposal == before.proposal else proposal,
        terms="" if terms == before.terms else terms,
        value=before.value,
        discount_percent=reading.discount_percent,
    )
    texts = f"{offer.proposal or before.proposal or ''}\n{offer.terms or before.terms or ''}"
    if reading.value is not None and names_value(texts, reading.value, before.currency):
        offer.value = round(reading.value, 2)
    return offer if offer.get_changes(before) else None


def find_concession(before: Opportunity, offer: Offer) -> str | None:
    """Return why a person must approve the offer because it may give money away; ``None`` if it does not."""
    return "; ".join(_find_concessions(before, offer)) or None


def _find_concessions(before: Opportunity, offer: Offer) -> Iterator[str]:
    new = f"{offer.proposal}\n{offer.terms}"
    if offer.discount_percent:
        yield f"it takes {offer.discount_percent:g} % off"
    if offer.value < before.value:
        yield f"the value falls from {before.value:,.2f} to {offer.value:,.2f} {before.currency}"
    if offer.value != before.value and not before.value:
        yield "the CRM holds no value to compare it with"
    if find_amounts(new, before.currency) and not names_value(new, offer.value, before.currency):
        yield f"none of its amounts is the deal's value of {offer.value:,.2f} {before.currency}"
    if _CONCESSION.search(new) or assess_message_risk(new) == "high":
        yield "its words speak of money given away or of a commitment"


def reject_offer(writes: Writes, reason: str) -> dict[str, Any]:
    """Return the update after a rejection; planned actions may promise what was rejected, so they change."""
    action = shorten(f"Answer the customer without the offer that was refused: {reason}")
    follow_up = writes["follow_up"]
    remaining = Writes(
        {
            **writes,
            "opportunity": {**(writes["opportunity"] or {}), "next_action": action},
            "follow_up": {**follow_up, "note": action} if follow_up else None,
        }
    )
    return {
        "unsaved": remaining,
        "pending_offer": None,
        "reason": "terms_rejected",
        "notes": [f"A person refused the offer: {reason}"],
    }
