"""Begin a run on a thread: read what is known of the contact, clear what the last run left."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from core.context import Context
from core.texts import make_storable
from nodes.deps import Deps, Node
from nodes.planning_monitor.state import PlanningInput
from nodes.shared.contact import load_contact_profile
from nodes.shared.context import reset_context


def prepare(deps: Deps) -> Node[PlanningInput, dict[str, Any]]:
    """Node: open the turn.

    Raises:
        NotFound: The CRM does not know the contact.
        CrmUnavailable: The CRM stayed away.
    """

    async def prepare(state: PlanningInput, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        message = HumanMessage(state.task, id=str(uuid4()))
        return {
            **reset_context(state.background),
            "messages": [message],
            "turn": message.id,
            "contact": await load_contact_profile(deps, state.contact_id),
            "guidance": state.instruction,
            "kept_constraints": [make_storable(constraint) for constraint in state.constraints],
            "draft": None,
            "faults": [],
            "plan": None,
            "wave": [],
            "results": Overwrite([]),
            "judgements": [],
            "revisions": 0,
            "completed": False,
            "reason": None,
            "detail": "",
        }

    return prepare
