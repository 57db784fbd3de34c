"""Put what a run has for the CRM into it, and keep what could not be put."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from core.errors import CrmError, CrmRefused
from nodes.sales.stages import CLOSED
from nodes.sales.state import Deal, Writes
from tools.crm.client import CrmClient
from tools.crm.models import Opportunity, OpportunityChanges
from tools.execution import derive_idempotency_key

Part: TypeAlias = Literal["opportunity", "follow_up", "hand_over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of the writes.

    Attributes:
        opportunity: As the CRM answered with it; ``None`` where it was not asked, or did not answer.
        left: What is still to be written; ``None``: nothing.
        refused: What the CRM would not take, in words; it is not tried again.
        fault: Why something is left; empty where nothing is.
    """

    opportunity: Opportunity | None
    left: Writes | None
    refused: list[str]
    fault: str


async def write(crm: CrmClient, deal: Deal, writes: Writes, *, thread_id: str) -> Written:
    """Write each part once: its key is made of the thread, the run it stems from, and what it says."""
    left = writes
    refused: list[str] = []
    opportunity: Opportunity | None = None
    try:
        for part, effect in _EFFECTS.items():
            if content := left[part]:
                key = _key(thread_id, writes["turn"], part, content)
                try:
                    opportunity = await effect(crm, deal, content, key) or opportunity
                except CrmRefused as refusal:
                    refused.append(f"{part}: {refusal.message}")
            left = _without(left, part)
        if refused:
            opportunity = await crm.get_opportunity(deal["contact_id"], deal["opportunity_id"])
    except CrmError as error:
        if any(left[part] for part in _EFFECTS):
            return Written(opportunity=opportunity, left=left, refused=refused, fault=error.message)
    return Written(opportunity=opportunity, left=None, refused=refused, fault="")


def overtaken(writes: Writes, opportunity: Opportunity) -> Writes:
    """What an earlier run left, without the stage where somebody has moved the deal since."""
    changes = writes["opportunity"]
    if not changes or opportunity.stage == writes["stage_was"] or changes.get("stage") in CLOSED:
        return writes
    return {**writes, "opportunity": {name: changes[name] for name in changes if name != "stage"}}


async def _opportunity(crm: CrmClient, deal: Deal, content: Mapping[str, Any], key: str) -> Opportunity:
    changes = OpportunityChanges.model_validate(content)
    return await crm.update_opportunity(deal["contact_id"], deal["opportunity_id"], changes, key=key)


async def _follow_up(crm: CrmClient, deal: Deal, content: Mapping[str, Any], key: str) -> None:
    await crm.schedule_follow_up(
        deal["contact_id"],
        due_at=content["due_at"],
        subject=content["subject"],
        note=content["note"],
        opportunity_id=deal["opportunity_id"],
        key=key,
    )


async def _hand_over(crm: CrmClient, deal: Deal, content: Mapping[str, Any], key: str) -> None:
    await crm.hand_over(
        deal["contact_id"],
        team=content["team"],
        reason=content["reason"],
        summary=content["summary"],
        key=key,
    )


_Effect: TypeAlias = Callable[[CrmClient, Deal, Mapping[str, Any], str], Awaitable[Opportunity | None]]
_EFFECTS: Mapping[Part, _Effect] = {
    "opportunity": _opportunity,
    "follow_up": _follow_up,
    "hand_over": _hand_over,
}


def _without(writes: Writes, part: Part) -> Writes:
    rest: Writes = {**writes}
    rest[part] = None
    return rest


def _key(thread_id: str, turn: str, part: Part, content: Mapping[str, Any]) -> str:
    return derive_idempotency_key(thread_id, turn, f"{part} {json.dumps(content, sort_keys=True)}")
