"""Close the turn: how the deal stands, in fields and in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage

from core.texts import cut, join_lines
from nodes.sales.stages import CLOSED, ORDER, build_stage_views, missing, overview
from nodes.sales.state import Reason, SalesState, StageName, StageView, Status
from tools.crm.models import Opportunity

_SUMMARY_CHARACTERS = 500
_BECAUSE: Mapping[Reason, str] = {
    "already_closed": "The deal is closed already; nothing was done.",
    "closed_meanwhile": "The deal was closed meanwhile; what this run found was not recorded.",
    "terms_rejected": "The offer was not approved and is not recorded.",
    "no_progress": "Nothing new came to light; the deal stands where it stood.",
    "stages_failed": "The sub-agents could not do their work; the deal is as it was.",
    "model_refused": "The model's provider declined to answer; the deal is as it was.",
    "model_unavailable": "The model did not answer; the deal is as it was, and the next run goes on.",
    "model_reply_unreadable": "The model's replies could not be read; the deal is as it was.",
    "crm_refused": "The CRM did not take all of it.",
    "crm_unavailable": "The CRM did not answer; what is not saved is kept for the next run.",
}


async def finish(state: SalesState) -> dict[str, Any]:
    """Node: append how the deal stands, as the CRM holds it."""
    reason = state["reason"]
    if state["opportunity"] is None:
        return {"success": False, "messages": [AIMessage("\n".join(_lines(state, None)))]}
    opportunity = Opportunity.model_validate(state["opportunity"])
    achieved = _achieved(state, opportunity)
    return {
        **overview(opportunity),
        "achieved": achieved,
        "stages": _stages(state, opportunity, achieved),
        "success": reason is None,
        "messages": [AIMessage("\n".join(_lines(state, opportunity)))],
    }


def _lines(state: SalesState, opportunity: Opportunity | None) -> Iterator[str]:
    if reason := state["reason"]:
        yield _BECAUSE[reason]
    if opportunity:
        value = f"{opportunity.value:,.2f} {opportunity.currency}"
        yield f"{opportunity.title}: {opportunity.stage}, {value}."
        if opportunity.next_action and opportunity.stage not in CLOSED:
            yield f"Next: {opportunity.next_action}"
    yield from state["notes"]
    for refusal in state["refused"]:
        yield f"The CRM did not take {refusal}"
    if unsaved := state["unsaved"]:
        parts = [part for part in ("opportunity", "follow_up", "hand_over") if unsaved[part]]
        yield f"Not saved yet: {', '.join(parts)}; the next run on this thread saves it."


def _worked(state: SalesState) -> Mapping[str, str]:
    """What each stage's sub-agent brought last."""
    return {each["agent"]: each["result"] for each in state["subtasks"] if each["status"] == "done"}


def _achieved(state: SalesState, opportunity: Opportunity) -> list[StageName]:
    """The stages this thread's runs worked on, or filled while they were open."""
    worked, lacking = _worked(state), missing(opportunity)
    was_open = {view["name"] for view in state["standing"] if view["status"] == "open"}
    now = {name for name in ORDER if name in worked or (name in was_open and name not in lacking)}
    return [name for name in ORDER if name in state["achieved"] or name in now]


def _stages(state: SalesState, opportunity: Opportunity, achieved: list[StageName]) -> list[StageView]:
    worked = _worked(state)
    was = {view["name"]: view["status"] for view in state["standing"]}
    return [
        _after_work(view, worked, was.get(view["name"], "open"))
        for view in build_stage_views(opportunity, achieved)
    ]


def _after_work(view: StageView, worked: Mapping[str, str], was: Status) -> StageView:
    """How a stage stands after the run, with what its sub-agent brought."""
    brought = cut(join_lines(worked.get(view["name"], "")), _SUMMARY_CHARACTERS)
    if not brought or view["status"] == "skipped":
        return view
    if view["status"] == "open":
        return {**view, "summary": f"{view['summary']}; this run: {brought}"}
    stood = was == "done" or (was == "skipped" and view["name"] != "objections")
    return {**view, "status": "repeated" if stood else "done", "summary": brought}
