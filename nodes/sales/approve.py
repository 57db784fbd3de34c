"""A person decides on an offer that gives, or may give, money away, before it is recorded."""

from typing import Any

from langgraph.types import interrupt

from nodes.sales.changes import Offer, staged
from nodes.sales.state import SalesState, Writes, short
from tools.approval import ApprovalDecision, ApprovalRequest, build_decision_schema
from tools.crm.models import Opportunity


async def approve(state: SalesState) -> dict[str, Any]:
    """Node: wait for the decision. An offer that is rejected leaves proposal, terms and value as they are."""
    waiting, writes = state["offer"], state["unsaved"]
    if waiting is None or writes is None:
        return {}
    request = ApprovalRequest(
        tool="update_opportunity",
        arguments={"opportunity_id": state["opportunity_id"], **waiting["offer"]},
        reason=waiting["reason"],
        contact_id=state["contact_id"],
    )
    decision: ApprovalDecision = interrupt(request.model_dump(), response_schema=build_decision_schema(Offer))
    if decision.decision == "reject":
        return _rejected(writes, decision.reason)
    before = Opportunity.model_validate(state["opportunity"])
    edited = decision.arguments
    offer = edited if isinstance(edited, Offer) else Offer.model_validate(waiting["offer"])
    changes = staged(before, {**(writes["opportunity"] or {}), **offer.changes(before)})
    told = "Tell the customer the offer as it was approved"
    changes["next_action"] = waiting["next_action"] if edited is None else told
    return {"unsaved": Writes({**writes, "opportunity": changes}), "offer": None}


def _rejected(writes: Writes, why: str) -> dict[str, Any]:
    """What was prepared to be done next may promise what was refused."""
    action = short(f"Answer the customer without the offer that was refused: {why}")
    follow_up = writes["follow_up"]
    kept = Writes(
        {
            **writes,
            "opportunity": {**(writes["opportunity"] or {}), "next_action": action},
            "follow_up": {**follow_up, "note": action} if follow_up else None,
        }
    )
    note = f"A person refused the offer: {why}"
    return {"unsaved": kept, "offer": None, "reason": "terms_rejected", "notes": [note]}
