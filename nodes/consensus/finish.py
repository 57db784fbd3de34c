"""Close the turn: the decision and the reasons, in words."""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage

from nodes.consensus.state import ConsensusState, Reason, Vote
from nodes.consensus.tally import Tally

_BY: Mapping[Reason, str] = {
    "majority": "by majority",
    "unanimous": "unanimously",
    "weighted": "by the weight of the votes",
    "quorum": "by quorum",
    "decided_by_human": "by a person",
}


async def finish(state: ConsensusState) -> dict[str, Any]:
    """Node: append the decision."""
    lines = [_headline(state), *map(_line, state["votes"])]
    if state["comment"]:
        lines.insert(1, f"Comment: {state['comment']}")
    return {"messages": [AIMessage("\n".join(lines))]}


def _headline(state: ConsensusState) -> str:
    reason, counted = state["reason"], state["tally"]
    if reason is None or reason not in _BY:
        return f"No decision: none of the {len(state['votes'])} voters gave a valid vote."
    return f"Decision: {state['decision']} ({_BY[reason]}{_numbers(counted)})."


def _numbers(counted: Tally | None) -> str:
    if counted is None:
        return ""
    each = ", ".join(f"{count['option']} {count['votes']}" for count in counted["counts"])
    missing = counted["voters"] - counted["valid"]
    return f"; votes: {each}{f', invalid {missing}' if missing else ''}"


def _line(vote: Vote) -> str:
    return f"- {vote['voter']}: {vote['choice'] or 'no vote'}. {vote['reasoning']}"
