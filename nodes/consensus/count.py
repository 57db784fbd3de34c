"""The votes, counted by the rule."""

from typing import Any, Literal, TypeAlias

from langgraph.types import Command

from nodes.consensus.state import DEFAULT_WEIGHT, ConsensusState
from nodes.consensus.tally import WeightedVote, count_votes

Next: TypeAlias = Command[Literal["ask_human", "finish"]]


async def count(state: ConsensusState) -> Next:
    """Node: decide by the rule, or ask a person. Where nobody voted there is nothing to weigh."""
    terms = state["terms"]
    weights = {lens["name"]: lens.get("weight", DEFAULT_WEIGHT) for lens in terms["lenses"]}
    cast = [WeightedVote(choice=vote["choice"], weight=weights[vote["voter"]]) for vote in state["votes"]]
    result = count_votes(cast, terms["options"], rule=terms["rule"], quorum=terms["quorum"])
    update: dict[str, Any] = {"tally": result}
    if result["outcome"] == "decided":
        return Command(
            goto="finish", update={**update, "decision": result["winner"], "reason": terms["rule"]}
        )
    if result["outcome"] == "no_valid_votes":
        return Command(goto="finish", update={**update, "reason": "no_valid_votes"})
    return Command(goto="ask_human", update=update)
