"""Write what is new into the CRM."""

from collections.abc import Iterator
from typing import Any

from langgraph.runtime import Runtime

from core.context import Context
from nodes.deps import Deps, Node, get_thread_id
from nodes.sales.stages import CLOSED
from nodes.sales.state import Reason, SalesState, Writes
from nodes.sales.writing import Written, write
from tools.crm.models import Opportunity


def record(deps: Deps) -> Node[SalesState, dict[str, Any]]:
    """Node: write it, once. What the CRM cannot take stays on the thread for the next run."""

    async def record(state: SalesState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        writes = state["unsaved"]
        if writes is None:
            return {}
        written = await write(deps.crm, state["deal"], writes, thread_id=get_thread_id(runtime))
        opportunity = written.opportunity or Opportunity.model_validate(state["opportunity"])
        return {
            "unsaved": written.left,
            "opportunity": opportunity.model_dump(),
            "refused": [*state["refused"], *written.refused],
            "notes": [*state["notes"], *_done(writes, written), *filter(None, [written.fault])],
            "reason": _reason(written, opportunity) or state["reason"],
        }

    return record


def _reason(written: Written, opportunity: Opportunity) -> Reason | None:
    if written.left:
        return "crm_unavailable"
    if written.refused:
        return "closed_meanwhile" if opportunity.stage in CLOSED else "crm_refused"
    return None


def _done(writes: Writes, written: Written) -> Iterator[str]:
    """What was done beside the opportunity."""
    open_parts = {part for part in ("follow_up", "hand_over") if written.left and written.left[part]}
    open_parts |= {refusal.partition(":")[0] for refusal in written.refused}
    if (follow_up := writes["follow_up"]) and "follow_up" not in open_parts:
        yield f"A follow-up is scheduled for {follow_up['due_at'][:10]}."
    if (hand_over := writes["hand_over"]) and "hand_over" not in open_parts:
        yield f"Handed over to {hand_over['team']}: {hand_over['reason']}"
