"""The stages of a deal: their sub-agents, their order, and how far the CRM's opportunity has come.

A stage is judged by what the opportunity holds and by nothing else.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from core.texts import cut, join_lines
from nodes.hierarchical.state import SubAgent, Subtask
from nodes.sales.state import StageName, StageView, Status
from tools.crm.models import Opportunity, Stage

# Both literals name the stages in their order.
ORDER: Sequence[StageName] = get_args(StageName)
CLOSED: Collection[Stage] = ("closed_won", "closed_lost")
_OPEN_STAGES: Sequence[Stage] = [stage for stage in get_args(Stage) if stage not in CLOSED]
QUALIFICATION = ("budget", "authority", "need", "timeline")
# The longest summary of a stage's results.
SUMMARY_CHARACTERS = 500

# One sub-agent per stage. They look up, think and draft, and have no effects: the graph checks their results
# against the evidence, records them, and asks a person where money would be given away.
SALES_TEAM: Sequence[SubAgent] = (
    SubAgent(
        name="qualification",
        description="Qualifies the deal: budget, authority (who decides), need and timeline.",
        instruction="Say for each of budget, authority, need and timeline what the customer or the CRM says, "
        "in their words, or that it is not known. Never assume one. Word one question that asks for what is "
        "not known.",
        tools=["get_contact", "get_opportunities"],
    ),
    SubAgent(
        name="needs",
        description="Works out what the customer needs, beyond what they ask for.",
        instruction="List each need in a few words, with where it comes from: the customer's words, their "
        "usage, their past tickets. Leave out what nobody said and nothing shows.",
        tools=["get_contact", "get_product_version", "search_past_tickets"],
    ),
    SubAgent(
        name="solution",
        description="Finds what of the product meets the customer's needs.",
        instruction="Meet each need with something the help articles say the product does, with exact "
        "limits. Name the needs that nothing meets.",
        tools=["search_knowledge_base", "get_product_version"],
    ),
    SubAgent(
        name="objections",
        description="Answers what speaks against buying, from facts.",
        instruction="Take each objection in the customer's own words and answer it with facts that you "
        "looked up. Where there is no honest answer, say so. Never answer with a lower price.",
        tools=["search_knowledge_base", "search_past_tickets", "check_service_status"],
    ),
    SubAgent(
        name="proposal",
        description="Writes the proposal: what is delivered, for which needs, by when, at which price.",
        instruction="Write the whole proposal. The price is the value of the deal in the CRM, with its "
        "currency's code; never another. Where the CRM holds none, say that a person must name it.",
        tools=["get_opportunities", "get_product_version"],
    ),
    SubAgent(
        name="negotiation",
        description="Works out the terms: duration, payment, start, what the customer asks to change.",
        instruction="Write the whole terms. You cannot grant money away: where the customer asks for it, say "
        "exactly what they ask and what the deal would be worth then; a person decides. Prefer changes that "
        "cost nothing: duration, start, way of paying.",
        tools=["get_opportunities", "get_invoices"],
    ),
    SubAgent(
        name="close",
        description="Reads whether the customer has agreed to the proposal, has declined, or needs time.",
        instruction="Copy the sentence in which the customer agrees or declines. A wish, a question or a "
        "condition is no agreement. Where they need time, say until when. Name the next step.",
        tools=["get_opportunities"],
    ),
)


def find_missing(opportunity: Opportunity) -> Mapping[StageName, str]:
    """Return the stages whose evidence is incomplete, each with what is missing."""
    unknown = [name for name in QUALIFICATION if not getattr(opportunity.qualification, name)]
    open_objections = [each.text for each in opportunity.objections if not each.answer]
    missing: dict[StageName, str] = {
        "qualification": f"not known yet: {', '.join(unknown)}" if unknown else "",
        "needs": "" if opportunity.needs else "no need is listed",
        "solution": "" if opportunity.solution else "there is no solution",
        "objections": f"not answered: {'; '.join(open_objections)}" if open_objections else "",
        "proposal": "" if opportunity.proposal else "there is no proposal",
        "negotiation": "" if opportunity.terms else "no terms are recorded",
        "close": "" if opportunity.stage in CLOSED else "the customer has not agreed to a proposal",
    }
    return {name: evidence for name, evidence in missing.items() if evidence}


def find_reached_stage(opportunity: Opportunity) -> Stage:
    """Return the first stage of an open deal whose evidence is missing, at the latest the negotiation."""
    missing = find_missing(opportunity)
    return next((stage for stage in _OPEN_STAGES if stage in missing), "negotiation")


def choose_next_stage(before: Opportunity, after: Opportunity) -> Stage:
    """Return an open deal's next stage: forward as far as its evidence goes, back when an objection is open.

    A deal that is further than its evidence was put there by a person, and stays there.

    Args:
        before: As the CRM holds it.
        after: With the changes of a run.
    """
    by_evidence = find_reached_stage(after)
    if _is_later(by_evidence, before.stage):
        return by_evidence
    if "objections" in find_missing(after) and _is_later(before.stage, "objections"):
        return "objections"
    return before.stage


def can_close(opportunity: Opportunity) -> bool:
    """Return whether there is something to agree to: a proposal, with no stage before it left out."""
    is_there = (
        opportunity.stage in {"proposal", "negotiation"} or find_reached_stage(opportunity) == "negotiation"
    )
    return bool(opportunity.proposal) and is_there and "objections" not in find_missing(opportunity)


def summarise_deal(opportunity: Opportunity) -> dict[str, Any]:
    """Return the output's fields about the deal, as the CRM holds it."""
    return {
        "closed": opportunity.stage in CLOSED,
        "deal_value": opportunity.value,
        "stage": opportunity.stage,
        "next_action": opportunity.next_action or "",
        "qualification": opportunity.qualification.model_dump(),
    }


def build_stage_views(opportunity: Opportunity, achieved: Collection[StageName]) -> list[StageView]:
    """Return every stage with its status.

    Args:
        opportunity: The deal.
        achieved: Stages that runs of this thread worked on.
    """
    missing = find_missing(opportunity)
    return [_build_view(name, opportunity, missing, achieved) for name in ORDER]


def _build_view(
    name: StageName,
    opportunity: Opportunity,
    missing: Mapping[StageName, str],
    achieved: Collection[StageName],
) -> StageView:
    if name == "close":
        return _build_close_view(opportunity)
    if reason := _explain_skip(name, opportunity, missing):
        return StageView(name=name, status="skipped", summary=reason)
    if name in missing:
        return StageView(name=name, status="open", summary=missing[name])
    if name == "objections" and not opportunity.objections:
        return StageView(name=name, status="open", summary="none was raised so far")
    if name in achieved:
        return StageView(name=name, status="done", summary="its evidence is recorded")
    return StageView(name=name, status="skipped", summary="the CRM already held its evidence")


def _build_close_view(opportunity: Opportunity) -> StageView:
    if opportunity.stage not in CLOSED:
        return StageView(name="close", status="open", summary="the customer has not agreed to a proposal")
    reason = opportunity.close_reason or "no reason is recorded"
    return StageView(name="close", status="done", summary=f"{opportunity.stage}: {reason}")


def _explain_skip(name: StageName, opportunity: Opportunity, missing: Mapping[StageName, str]) -> str:
    """Return why a stage needs no work; empty when it does, or did."""
    if opportunity.stage in CLOSED and name in missing:
        return f"the deal was closed without it ({missing[name]})"
    is_past = opportunity.stage in CLOSED or find_reached_stage(opportunity) in {"proposal", "negotiation"}
    if name == "objections" and not opportunity.objections and is_past:
        return "none was raised"
    return ""


def _is_later(one: Stage, other: Stage) -> bool:
    return _OPEN_STAGES.index(one) > _OPEN_STAGES.index(other)


def conclude_stages(
    opportunity: Opportunity,
    subtasks: Sequence[Subtask],
    before: Sequence[StageView],
    achieved: Collection[StageName],
) -> tuple[list[StageName], list[StageView]]:
    """Return the stages that the thread's runs achieved, and every stage with its status after the run.

    A stage is achieved when a run worked on it, or completed it while it was open.

    Args:
        opportunity: The deal after the run.
        subtasks: The work of the run.
        before: The stages when the run began.
        achieved: The stages that earlier runs achieved.
    """
    results, missing = collect_results(subtasks), find_missing(opportunity)
    statuses = {view["name"]: view["status"] for view in before}
    total = [
        name
        for name in ORDER
        if name in achieved or name in results or (statuses.get(name) == "open" and name not in missing)
    ]
    views = [
        _add_result(view, results.get(view["name"], ""), statuses.get(view["name"], "open"))
        for view in build_stage_views(opportunity, total)
    ]
    return total, views


def collect_results(subtasks: Sequence[Subtask]) -> Mapping[str, str]:
    """Return the results of the subtasks that are done, by stage."""
    return {each["agent"]: each["result"] for each in subtasks if each["status"] == "done"}


def _add_result(view: StageView, result: str, before: Status) -> StageView:
    summary = cut(join_lines(result), SUMMARY_CHARACTERS)
    if not summary or view["status"] == "skipped":
        return view
    if view["status"] == "open":
        return {**view, "summary": f"{view['summary']}; this run: {summary}"}
    is_repeated = before == "done" or (before == "skipped" and view["name"] != "objections")
    return {**view, "status": "repeated" if is_repeated else "done", "summary": summary}
