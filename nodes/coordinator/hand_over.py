"""A person takes over: the CRM is told, and so is the customer."""

import asyncio
from typing import Any

from langgraph.runtime import Runtime

from core.context import Context
from core.errors import CrmError
from core.logging import get_logger
from core.texts import cut, detect_language
from nodes.coordinator.handing_over import told
from nodes.coordinator.state import CoordinatorState, Handoff, Reason
from nodes.deps import Deps, Node, get_run_context
from tools.execution import derive_idempotency_key

log = get_logger(__name__)

# The customer waits for the answer.
RECORD_SECONDS = 10.0
_SUMMARY_CHARACTERS = 1_000


def hand_over(deps: Deps) -> Node[CoordinatorState, dict[str, Any]]:
    """Node: record the hand-off in the CRM, once, and word it. A CRM that is away keeps no answer."""

    async def hand_over(state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        handoff: Handoff = {**state["handoff"], "recorded": await _recorded(deps, state)}
        # Attempts that failed lead here; without any, it was a rule.
        asked_for = not state["attempts"]
        language = detect_language(state["message"], get_run_context(runtime).locale)
        return {
            "handoff": handoff,
            "path": "handoff",
            "response": told(language, handoff, asked_for=asked_for),
            "success": asked_for and handoff["recorded"],
            "reason": _reason(handoff, asked_for=asked_for),
        }

    return hand_over


async def _recorded(deps: Deps, state: CoordinatorState) -> bool:
    handoff = state["handoff"]
    try:
        async with asyncio.timeout(RECORD_SECONDS):
            await deps.crm.hand_over(
                state["contact_id"],
                team=handoff["team"],
                reason=handoff["reason"],
                summary=cut(state["message"], _SUMMARY_CHARACTERS),
                key=derive_idempotency_key(state["session_id"], state["turn"], "hand_over"),
            )
    except (CrmError, TimeoutError) as error:
        log.warning("handoff_not_recorded", session_id=state["session_id"], reason=str(error))
        return False
    return True


def _reason(handoff: Handoff, *, asked_for: bool) -> Reason | None:
    if not asked_for:
        return "agents_failed"
    return None if handoff["recorded"] else "handoff_not_recorded"
