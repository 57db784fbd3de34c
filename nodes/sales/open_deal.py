"""Begin a run: read the deal, which is the CRM's, and write what the thread's last run could not."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import CrmError, CrmRefused, InvalidRequest, NotFound
from core.texts import make_storable
from nodes.deps import Deps, Node, get_thread_id
from nodes.sales.stages import CLOSED
from nodes.sales.state import Deal, Reason, SalesState
from nodes.sales.writing import overtaken, write
from nodes.shared.contact import load_contact_profile
from nodes.shared.context import reset_context
from tools.crm.models import Opportunity

Next: TypeAlias = Command[Literal["assess", "finish"]]

# What the customer said while no run could read it; the last words count most.
_UNHEARD_CHARACTERS = 12_000


def open_deal(deps: Deps) -> Node[SalesState, Next]:
    """Node: open the turn with the deal as the CRM holds it. A deal that is closed ends the run at once.

    What the customer says is kept on the thread until a run has read it into the deal, so that nothing is
    lost when the CRM or the model is away.

    Raises:
        NotFound: The contact or the opportunity does not exist, or the opportunity is another contact's.
        InvalidRequest: The thread is about another deal.
    """

    async def open_deal(state: SalesState, *, runtime: Runtime[Context]) -> Next:
        deal = Deal(contact_id=state["contact_id"], opportunity_id=state["opportunity_id"])
        _require_same(state.get("deal"), deal)
        begun = _begun(state, deal)
        try:
            opportunity = await _opportunity(deps, deal)
            contact = await load_contact_profile(deps, deal["contact_id"])
        except CrmError as error:
            return _end({**begun, "notes": [error.message]}, "crm_unavailable")
        begun |= {"opportunity": opportunity.model_dump(), "contact": contact}
        if left := state.get("unsaved"):
            caught_up = await write(
                deps.crm, deal, overtaken(left, opportunity), thread_id=get_thread_id(runtime)
            )
            opportunity = caught_up.opportunity or opportunity
            begun |= {
                "opportunity": opportunity.model_dump(),
                "unsaved": caught_up.left,
                "refused": caught_up.refused,
            }
            if caught_up.left:
                return _end({**begun, "notes": [caught_up.fault]}, "crm_unavailable")
        if opportunity.stage in CLOSED:
            # Nobody will read it into a deal that takes no more changes.
            return _end({**begun, "unheard": ""}, "already_closed")
        return Command(goto="assess", update=begun)

    return open_deal


def _begun(state: SalesState, deal: Deal) -> dict[str, Any]:
    """The update that opens a turn: what the last run said is cleared."""
    said = make_storable(state.get("message") or "").strip()
    unheard = "\n".join(filter(None, (state.get("unheard", ""), said)))
    return {
        **reset_context(),
        "messages": [HumanMessage(said, id=str(uuid4()))] if said else [],
        "deal": deal,
        "unheard": unheard[-_UNHEARD_CHARACTERS:],
        "turn": str(uuid4()),
        "today": datetime.now(UTC).date().isoformat(),
        "opportunity": None,
        "contact": None,
        "unsaved": state.get("unsaved"),
        "achieved": state.get("achieved", []),
        "standing": [],
        "subtasks": [],
        "offer": None,
        "refused": [],
        "notes": [],
        "closed": False,
        "deal_value": 0.0,
        "stage": None,
        "next_action": "",
        "qualification": {},
        "stages": [],
        "success": False,
        "reason": None,
    }


async def _opportunity(deps: Deps, deal: Deal) -> Opportunity:
    try:
        return await deps.crm.get_opportunity(deal["contact_id"], deal["opportunity_id"])
    except CrmRefused as refusal:
        raise NotFound(
            f"the CRM knows no opportunity {deal['opportunity_id']!r} of contact {deal['contact_id']!r}",
            details={**deal},
        ) from refusal


def _require_same(known: Deal | None, asked: Deal) -> None:
    if known is not None and known != asked:
        raise InvalidRequest(
            f"the thread is about opportunity {known['opportunity_id']!r} of contact "
            f"{known['contact_id']!r}; begin another thread for another deal",
            details={**known},
        )


def _end(update: Mapping[str, Any], reason: Reason) -> Next:
    return Command(goto="finish", update={**update, "reason": reason})
