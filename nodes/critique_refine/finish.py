"""Close the turn: the best version is the answer."""

from typing import Any

from langchain_core.messages import AIMessage

from nodes.critique_refine.state import CritiqueRefineState
from nodes.critique_refine.versions import best, critique_in, score

NO_MESSAGE = "There is no message: the model's replies could not be read."


async def finish(state: CritiqueRefineState) -> dict[str, Any]:
    """Node: hand out the best version with what its judges said."""
    chosen = best(state["history"])
    if chosen is None:
        return {"messages": [AIMessage(NO_MESSAGE)]}
    return {
        "messages": [AIMessage(chosen["text"])],
        "output": chosen["text"],
        "score": score(chosen["total"]),
        "critique": critique_in(chosen),
        "validation": chosen["validation"],
    }
