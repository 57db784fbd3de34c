"""What a reading changes of the deal, as far as there is evidence for it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from nodes.sales.evidence import Evidence, is_agreement, is_refusal
from nodes.sales.stages import CLOSED, QUALIFICATION, choose_next_stage, may_close, missing
from nodes.sales.state import (
    MOST_LISTED,
    DealReading,
    FollowUpPlan,
    HandOver,
    ObjectionReading,
    PersonNeeded,
    StageName,
    long,
    short,
)
from tools.crm.models import Objection, Opportunity

# When the customer asks for time and names no day.
FOLLOW_UP_DAYS = 7
_FURTHEST_DAYS = 730
_HOUR_UTC = time(9, tzinfo=UTC)
SALES_TEAM = "sales"
_TITLE_CHARACTERS = 150
_WORKED_OUT: Mapping[str, StageName] = {
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


def believed(before: Opportunity, reading: DealReading, material: Evidence) -> tuple[DealReading, list[str]]:
    """The reading without what nothing supports.

    What is known of the customer needs words of theirs, or of a sub-agent; a solution, an answer to an
    objection, a proposal and terms need the work of their own stage in this run.

    Returns:
        The reading, and the names of what was left out.
    """
    doubted: dict[str, Any] = {}
    for name in QUALIFICATION:
        text, known = getattr(reading, name), getattr(before.qualification, name)
        if text and text != known and not material.supports(text):
            doubted[name] = ""
    for name, stage in _WORKED_OUT.items():
        text = getattr(reading, name)
        if text and long(text) != getattr(before, name) and not material.has_worked_out(stage, text):
            doubted[name] = ""
    needs = [need for need in reading.needs if material.supports(need)]
    objections = _raised(reading.objections, before, material)
    if needs != reading.needs:
        doubted["needs"] = needs
    if objections != reading.objections:
        doubted["objections"] = objections
    return reading.model_copy(update=doubted), list(doubted)


def facts(before: Opportunity, reading: DealReading) -> dict[str, Any]:
    """What became known of the customer, and what was worked out for them; only what is new."""
    qualification = {
        name: text
        for name in QUALIFICATION
        # A piece of what is known already says less, not more.
        if (text := short(getattr(reading, name))).casefold()
        not in (getattr(before.qualification, name) or "").casefold()
    }
    needs = _with_new(before.needs, reading.needs)
    objections = _answered(before.objections, reading)
    solution = long(reading.solution)
    found: dict[str, Any] = {}
    if qualification:
        found["qualification"] = qualification
    if needs != before.needs:
        found["needs"] = needs
    if solution and solution != before.solution:
        found["solution"] = solution
    if objections != before.objections:
        found["objections"] = [each.model_dump() for each in objections]
    return found


def closing(
    before: Opportunity, reading: DealReading, words: str, *, offers_anew: bool
) -> tuple[dict[str, Any], str]:
    """The end of the deal, where the customer said so.

    Args:
        before: As the CRM holds it: a customer can agree only to what was there when they spoke.
        reading: With the customer's sentences.
        words: What the customer said.
        offers_anew: Whether the reading changes the proposal, the terms or the value.

    Returns:
        The changes that close it, none where it stays open; and why a close that was read is not believed.
    """
    agreement, refusal = reading.agreement.strip(), reading.refusal.strip()
    if not agreement and not refusal:
        return {}, ""
    if agreement and refusal:
        return {}, "The customer was read as agreeing and declining at once: ask which it is."
    if refusal:
        doubt = "" if is_refusal(words, refusal) else "The customer's own words do not say that they decline."
        return ({}, doubt) if doubt else ({"stage": "closed_lost", "close_reason": short(refusal)}, "")
    doubt = _doubt(before, agreement, words, offers_anew=offers_anew)
    return ({}, doubt) if doubt else ({"stage": "closed_won", "close_reason": short(agreement)}, "")


def _doubt(before: Opportunity, agreement: str, words: str, *, offers_anew: bool) -> str:
    """Why an agreement does not close the deal; empty when it does."""
    if offers_anew:
        return "The deal was not closed: its offer is only now being changed, and needs a new agreement."
    if not may_close(before):
        return "The deal was not closed: it holds no proposal, without open objections, to agree to."
    if not is_agreement(words, agreement):
        return "The deal was not closed: the customer has not agreed explicitly and without reserve."
    return ""


def staged(before: Opportunity, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with the stage they carry an open deal to."""
    if changes.get("stage") in CLOSED:
        return dict(changes)
    stage = choose_next_stage(before, overlaid(before, changes))
    kept = {name: value for name, value in changes.items() if name != "stage"}
    return {**kept, "stage": stage} if stage != before.stage else kept


def overlaid(before: Opportunity, changes: Mapping[str, Any]) -> Opportunity:
    """The opportunity as it would be with the changes."""
    known = before.model_dump()
    qualification = {**known["qualification"], **changes.get("qualification", {})}
    return Opportunity.model_validate({**known, **changes, "qualification": qualification})


def default_action(after: Opportunity) -> str:
    """What is next where nobody said: what the first open stage lacks."""
    if after.stage == "closed_won":
        return "Deliver what was agreed"
    if after.stage == "closed_lost":
        return "Nothing: the deal is lost"
    lacking = next(iter(missing(after).items()), None)
    return f"Go on with {lacking[0]}: {lacking[1]}"[:500] if lacking else "Ask the customer to agree"


def follow_up(
    before: Opportunity, reading: DealReading, words: str, *, today: str, action: str
) -> FollowUpPlan | None:
    """When to come back to a customer who is not ready, or on the day they named; ``None``: no need.

    For what they said before, a follow-up was planned when they said it.
    """
    if not words:
        return None
    now = date.fromisoformat(today)
    day = _day(reading.follow_up_on, now)
    if day is None and not reading.not_ready:
        return None
    due = datetime.combine(day or now + timedelta(days=FOLLOW_UP_DAYS), _HOUR_UTC)
    return FollowUpPlan(
        due_at=due.isoformat(), subject=f"Follow up: {before.title[:_TITLE_CHARACTERS]}", note=action
    )


def hand_over(before: Opportunity, reading: DealReading, *, action: str) -> HandOver | None:
    """What a person is to take over; ``None``: nothing."""
    if reading.needs_person == "no":
        return None
    reason = _PERSON_NEEDED[reading.needs_person]
    value = f"{before.value:,.2f} {before.currency}"
    summary = f"{before.title} ({before.id}), {value}, in {before.stage}. {short(reading.why)} Next: {action}"
    return HandOver(team=SALES_TEAM, reason=reason, summary=summary)


def _raised(
    read: Sequence[ObjectionReading], before: Opportunity, material: Evidence
) -> list[ObjectionReading]:
    """The objections that were raised, open where nobody worked their answer out."""
    known = {each.text.casefold(): each.answer for each in before.objections}
    return [
        each
        if each.answer in {"", known.get(short(each.text).casefold())}
        or material.has_worked_out("objections", each.answer)
        else each.model_copy(update={"answer": ""})
        for each in read
        if short(each.text).casefold() in known or material.supports(each.text)
    ]


def _with_new(known: list[str], read: list[str]) -> list[str]:
    """The known needs, and those that are not among them in any case."""
    folded = {need.casefold() for need in known}
    new = {need.casefold(): need for need in map(short, read) if need and need.casefold() not in folded}
    return [*known, *new.values()][:MOST_LISTED]


def _answered(known: list[Objection], reading: DealReading) -> list[Objection]:
    """The known objections with their answers, and new ones behind them; an answer is never taken back."""
    by_words = {each.text.casefold(): each for each in known}
    for read in reading.objections:
        text, answer = short(read.text), short(read.answer)
        earlier = by_words.get(text.casefold())
        if text:
            kept = earlier.answer if earlier else None
            by_words[text.casefold()] = Objection(
                text=earlier.text if earlier else text, answer=answer or kept
            )
    return list(by_words.values())[:MOST_LISTED]


def _day(written: str, now: date) -> date | None:
    """The day, where it is one and lies ahead."""
    try:
        day = date.fromisoformat(written.strip()[:10])
    except ValueError:
        return None
    return day if now < day <= now + timedelta(days=_FURTHEST_DAYS) else None
