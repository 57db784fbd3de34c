"""Close the turn: what was done becomes the thread's last message."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage

from core.texts import make_storable
from nodes.planning_monitor.briefing import clipped
from nodes.planning_monitor.endings import BECAUSE
from nodes.planning_monitor.state import PlanningState, StepResult

_TASK_CHARACTERS = 120
_DETAIL_CHARACTERS = 1_000


async def finish(state: PlanningState) -> dict[str, Any]:
    """Node: append the answer."""
    return {"messages": [AIMessage(make_storable(_answer(state)))]}


def _answer(state: PlanningState) -> str:
    done = [result for result in state["results"] if result["success"]]
    if state["reason"] is None:
        return done[0]["result"] if len(done) == 1 else _listed(done)
    why = f"{BECAUSE[state['reason']]} ({clipped(state['detail'], _DETAIL_CHARACTERS).rstrip('.')})"
    parts = [f"I could not finish this: {why}."]
    if done:
        parts.append(f"This was done:\n\n{_listed(done)}")
    return "\n\n".join(parts)


def _listed(results: Sequence[StepResult]) -> str:
    return "\n".join(
        f"{result['step_id']}. {clipped(result['task'], _TASK_CHARACTERS)} {result['result']}"
        for result in results
    )
