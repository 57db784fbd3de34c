"""What is known of the customer, before anybody answers."""

import asyncio
import json
from typing import Any

from langgraph.runtime import Runtime

from core.context import Context
from core.errors import CrmError, NotFound
from core.logging import get_logger
from nodes.contact import contact_context
from nodes.coordinator.state import CoordinatorState
from nodes.deps import Deps, Node

log = get_logger(__name__)

# The customer waits, and an agent can ask the CRM itself: better an answer without than a late one.
RECALL_SECONDS = 3.0


def recall(deps: Deps) -> Node[CoordinatorState, dict[str, Any]]:
    """Node: read the customer from the CRM. A CRM that is away, or does not know them, stops nobody."""

    async def recall(state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                customer = await contact_context(deps, state["contact_id"])
        except (CrmError, NotFound, TimeoutError) as error:
            log.warning("customer_not_recalled", contact_id=state["contact_id"], reason=str(error))
            return {}
        return {"customer": json.dumps(customer, ensure_ascii=False)}

    return recall
