"""How far a deal is, told by what its opportunity holds and by nothing else."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nodes.sales.state import StageName, StageView
from tools.crm.models import Opportunity, Stage

ORDER: Sequence[StageName] = (
    "qualification",
    "needs",
    "solution",
    "objections",
    "proposal",
    "negotiation",
    "close",
)
_OPEN_STAGES: Sequence[Stage] = (
    "qualification",
    "needs",
    "solution",
    "objections",
    "proposal",
    "negotiation",
)
CLOSED: Collection[Stage] = ("closed_won", "closed_lost")
QUALIFICATION = ("budget", "authority", "need", "timeline")


def missing(opportunity: Opportunity) -> Mapping[StageName, str]:
    """The stages whose evidence is not there, each with what is missing."""
    unknown = [name for name in QUALIFICATION if not getattr(opportunity.qualification, name)]
    open_objections = [each.text for each in opportunity.objections if not each.answer]
    lacking: dict[StageName, str] = {
        "qualification": f"not known yet: {', '.join(unknown)}" if unknown else "",
        "needs": "" if opportunity.needs else "no need is listed",
        "solution": "" if opportunity.solution else "there is no solution",
        "objections": f"not answered: {'; '.join(open_objections)}" if open_objections else "",
        "proposal": "" if opportunity.proposal else "there is no proposal",
        "negotiation": "" if opportunity.terms else "no terms are recorded",
        "close": "" if opportunity.stage in CLOSED else "the customer has not agreed to a proposal",
    }
    return {name: lack for name, lack in lacking.items() if lack}


def reached(opportunity: Opportunity) -> Stage:
    """The stage an open deal may be in: the first whose evidence is missing. Terms may yet be negotiated."""
    lacking = missing(opportunity)
    return next((stage for stage in _OPEN_STAGES if stage in lacking), "negotiation")


def next_stage(before: Opportunity, after: Opportunity) -> Stage:
    """Where an open deal goes: forward as far as its evidence carries, back when an objection is open.

    Where the CRM has the deal further than its evidence, a person put it there, and it stays.

    Args:
        before: As the CRM holds it.
        after: With the changes of a run.
    """
    by_evidence = reached(after)
    if _later(by_evidence, before.stage):
        return by_evidence
    if "objections" in missing(after) and _later(before.stage, "objections"):
        return "objections"
    return before.stage


def may_close(before: Opportunity) -> bool:
    """Whether the customer has something to agree to: a proposal, and no stage before it left out."""
    has_got_there = before.stage in {"proposal", "negotiation"} or reached(before) == "negotiation"
    return bool(before.proposal) and has_got_there and "objections" not in missing(before)


def overview(opportunity: Opportunity) -> dict[str, Any]:
    """What the output says of the deal, as the CRM holds it."""
    return {
        "closed": opportunity.stage in CLOSED,
        "deal_value": opportunity.value,
        "stage": opportunity.stage,
        "next_action": opportunity.next_action or "",
        "qualification": opportunity.qualification.model_dump(),
    }


def standing(opportunity: Opportunity, achieved: Collection[StageName]) -> list[StageView]:
    """Every stage as it stands.

    Args:
        opportunity: The deal.
        achieved: Stages that runs of this thread worked on.
    """
    lacking = missing(opportunity)
    return [_view(name, opportunity, lacking, achieved) for name in ORDER]


def _view(
    name: StageName,
    opportunity: Opportunity,
    lacking: Mapping[StageName, str],
    achieved: Collection[StageName],
) -> StageView:
    if name == "close":
        return _close(opportunity)
    if not_needed := _not_needed(name, opportunity, lacking):
        return StageView(name=name, status="skipped", summary=not_needed)
    if name in lacking:
        return StageView(name=name, status="open", summary=lacking[name])
    if name == "objections" and not opportunity.objections:
        return StageView(name=name, status="open", summary="none was raised so far")
    if name in achieved:
        return StageView(name=name, status="done", summary="what it is for is recorded")
    return StageView(name=name, status="skipped", summary="the CRM held what it is for already")


def _close(opportunity: Opportunity) -> StageView:
    if opportunity.stage not in CLOSED:
        return StageView(name="close", status="open", summary="the customer has not agreed to a proposal")
    why = opportunity.close_reason or "no reason is recorded"
    return StageView(name="close", status="done", summary=f"{opportunity.stage}: {why}")


def _not_needed(name: StageName, opportunity: Opportunity, lacking: Mapping[StageName, str]) -> str:
    """Why nothing is to be done in a stage; empty when something is, or was."""
    if opportunity.stage in CLOSED and name in lacking:
        return f"the deal was closed without it ({lacking[name]})"
    past = opportunity.stage in CLOSED or reached(opportunity) in {"proposal", "negotiation"}
    if name == "objections" and not opportunity.objections and past:
        return "none was raised"
    return ""


def _later(one: Stage, other: Stage) -> bool:
    return _OPEN_STAGES.index(one) > _OPEN_STAGES.index(other)
