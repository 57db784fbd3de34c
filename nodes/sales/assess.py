"""Which stages are behind the deal and which are due, by what the opportunity holds."""

from typing import Any

from nodes.sales.stages import build_stage_views, overview
from nodes.sales.state import SalesState
from tools.crm.models import Opportunity


async def assess(state: SalesState) -> dict[str, Any]:
    """Node: say how each stage stands before anybody works."""
    opportunity = Opportunity.model_validate(state["opportunity"])
    stages = build_stage_views(opportunity, state["achieved"])
    return {**overview(opportunity), "standing": stages, "stages": stages}
