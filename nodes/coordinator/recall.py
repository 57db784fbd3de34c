"""What is known of the customer, before anybody answers."""

import json
from typing import Any

from langgraph.runtime import Runtime

from core.context import Context
from nodes.coordinator.state import CoordinatorState
from nodes.deps import Deps, Node
from nodes.shared.contact import try_load_contact_profile


def recall(deps: Deps) -> Node[CoordinatorState, dict[str, Any]]:
    """Node: read the customer from the CRM. A CRM that is away, or does not know them, stops nobody."""

    async def recall(state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        customer = await try_load_contact_profile(deps, state["contact_id"])
        return {"customer": json.dumps(customer, ensure_ascii=False)} if customer else {}

    return recall
