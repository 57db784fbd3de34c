"""Begin a run on a thread: read the contact, make what is asked a message, clear what the last run left."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.consensus.state import ConsensusInput, Terms
from nodes.deps import Deps, Node
from nodes.shared.contact import load_contact_profile
from nodes.shared.context import reset_context


def prepare(deps: Deps) -> Node[ConsensusInput, dict[str, Any]]:
    """Node: open the turn. A run that cannot begin, as the CRM is away, leaves no turn behind."""

    async def prepare(state: ConsensusInput, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        contact = await load_contact_profile(deps, state.contact_id)
        return {
            **reset_context(),
            "messages": [HumanMessage(state.question, id=str(uuid4()))],
            "terms": Terms(options=state.options, lenses=state.lenses, rule=state.rule, quorum=state.quorum),
            "contact": contact,
            "votes": [],
            "tally": None,
            "decision": "",
            "comment": "",
            "reason": None,
        }

    return prepare
