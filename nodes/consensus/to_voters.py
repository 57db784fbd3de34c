"""Every voter gets the same case."""

import json

from langgraph.types import Send

from nodes.consensus.state import ConsensusState, VoteInput
from nodes.consensus.texts import fence
from nodes.shared.context import build_background_messages
from nodes.shared.prompts import load_prompt


def to_voters(state: ConsensusState) -> list[Send]:
    """Edge: a task of ``vote`` for each lens, with what all of them see."""
    known = json.dumps(state["contact"], ensure_ascii=False, indent=1)
    contact = load_prompt("consensus_contact").format(contact=fence("contact", known))
    told = "\n\n".join(
        [contact, *(message.text for message in build_background_messages(state["background"]))]
    )
    terms = state["terms"]
    return [
        Send(
            "vote",
            VoteInput(lens=lens, options=terms["options"], question=state["question"], contact=told),
        )
        for lens in terms["lenses"]
    ]
