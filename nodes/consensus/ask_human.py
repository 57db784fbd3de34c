"""A person decides what the votes did not."""

from typing import Any

from langgraph.types import interrupt
from pydantic import Field, create_model

from nodes.consensus.state import ConsensusState, HumanDecision, one_of


async def ask_human(state: ConsensusState) -> dict[str, Any]:
    """Node: wait for a person, who sees the votes with their reasons.

    An answer that is not one of the options is refused by LangGraph before anything is changed, and the
    question stays open.
    """
    options = state["terms"]["options"]
    asked = {
        "question": state["question"],
        "contact_id": state["contact_id"],
        "options": options,
        "tally": state["tally"],
        "votes": state["votes"],
    }
    answer = interrupt(asked, response_schema=decision_among(options))
    return {"decision": answer.choice, "comment": answer.comment, "reason": "decided_by_human"}


def decision_among(options: list[str]) -> type[HumanDecision]:
    """A decision that takes no choice but these."""
    choice = (one_of(options), Field(description=HumanDecision.model_fields["choice"].description))
    return create_model("HumanDecision", __base__=HumanDecision, __doc__=HumanDecision.__doc__, choice=choice)
