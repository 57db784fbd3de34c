"""Begin a run on a thread: read the customer, make the request a message, clear what the last run left."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.critique_refine.state import CritiqueRefineInput
from nodes.deps import Deps, Node
from nodes.shared.contact import load_contact_profile
from nodes.shared.context import reset_context


def prepare(deps: Deps) -> Node[CritiqueRefineInput, dict[str, Any]]:
    """Node: open the turn. A run that cannot begin, as the CRM is away, leaves no turn behind."""

    async def prepare(
        state: CritiqueRefineInput,
        *,
        runtime: Runtime[Context],  # noqa: ARG001 - the face of a node
    ) -> dict[str, Any]:
        customer = await load_contact_profile(deps, state.contact_id)
        return {
            **reset_context(state.background),
            "messages": [HumanMessage(state.prompt, id=str(uuid4()))],
            "customer": customer,
            "guidance": state.instruction,
            "threshold": state.quality_threshold,
            "cycle_limit": state.max_refinement_cycles,
            "draft": "",
            "critique": None,
            "critique_fault": None,
            "validation": None,
            "validation_fault": None,
            "cycles": 0,
            "history": [],
            "success": False,
            "output": "",
            "score": 0.0,
            "reason": None,
        }

    return prepare
