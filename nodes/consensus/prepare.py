"""Begin a run on a thread: what is asked becomes a message, and the voters get the case."""

import json
from typing import Literal, TypeAlias
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from core.context import Context
from nodes.consensus.state import ConsensusInput, Terms, VoteInput
from nodes.consensus.texts import fenced
from nodes.contact import ContactContext, contact_context
from nodes.deps import Deps, Node
from nodes.prompts import prompt

Next: TypeAlias = Command[Literal["vote"]]


def prepare(deps: Deps) -> Node[ConsensusInput, Next]:
    """Node: open the turn, and send each voter what all of them see."""
    template = prompt("consensus_contact")

    async def prepare(state: ConsensusInput, *, runtime: Runtime[Context]) -> Next:  # noqa: ARG001
        known = await contact_context(deps, state.contact_id)
        contact = template.format(contact=fenced("contact", _json(known)))
        update = {
            "messages": [HumanMessage(state.question, id=str(uuid4()))],
            "terms": Terms(options=state.options, lenses=state.lenses, rule=state.rule, quorum=state.quorum),
            "votes": [],
            "tally": None,
            "decision": "",
            "comment": "",
            "reason": None,
        }
        sends = [
            Send(
                "vote",
                VoteInput(lens=lens, options=state.options, question=state.question, contact=contact),
            )
            for lens in state.lenses
        ]
        return Command(goto=sends, update=update)

    return prepare


def _json(known: ContactContext) -> str:
    return json.dumps(known, ensure_ascii=False, indent=1)
