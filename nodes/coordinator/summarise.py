"""Keep the conversation within what an agent is shown: older turns are summed up before they are dropped."""

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AnyMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.packing import count_tokens
from nodes.coordinator.state import CoordinatorState
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.conversation import (
    MAX_TURNS,
    extract_first_sentences,
    format_turn,
    select_unsummarised,
    summarise_conversation,
)

# Beyond this part of its share the conversation is folded, to half as much: the next turn has room then, and
# a summary is made once in many turns.
_FULL = 0.8
_KEPT = 0.4
# The answer waits for it, where it is not streamed.
SUMMARY_SECONDS = 15.0


def summarise(deps: Deps) -> Node[CoordinatorState, dict[str, Any]]:
    """Node: most turns have nothing to sum up."""
    share = deps.context_tokens // 2

    async def summarise(state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        said = select_unsummarised(
            state["messages"],
            turn="",
            summarised_to=state.get("summarised_to", ""),
            limit=len(state["messages"]),
        )
        old = await asyncio.to_thread(_old, said, share)
        if not old:
            return {}
        earlier = state.get("summary", "")
        try:
            async with asyncio.timeout(SUMMARY_SECONDS):
                summary = await summarise_conversation(
                    deps.models, old, earlier=earlier, model=get_run_context(runtime).model
                )
        except TimeoutError:
            summary = extract_first_sentences(old, earlier=earlier)
        return {"summary": summary, "summarised_to": old[-1].id or ""}

    return summarise


def _old(said: Sequence[AnyMessage], share: int) -> Sequence[AnyMessage]:
    """The turns there will soon be no room for; none while there is room for all."""
    costs = [count_tokens(format_turn(message)) for message in said]
    if sum(costs) <= _FULL * share and len(said) < MAX_TURNS - 2:
        return []
    kept, spent = 0, 0
    for cost in reversed(costs):
        if spent + cost > _KEPT * share or kept >= MAX_TURNS // 2:
            break
        kept, spent = kept + 1, spent + cost
    # The last exchange is always shown as it was.
    return said[: len(said) - max(kept, 2)]
