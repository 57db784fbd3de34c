"""Begin a run on a thread: the task becomes a message, what the last run left is cleared."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.texts import make_storable
from nodes.deps import Deps, Node
from nodes.hierarchical.state import HierarchicalInput, SubAgent
from nodes.hierarchical.team import complete_team
from nodes.shared.context import reset_context


def prepare(deps: Deps, team: Sequence[SubAgent]) -> Node[HierarchicalInput, dict[str, Any]]:
    """Node: open the turn.

    Args:
        deps: Their tools are those a sub-agent may name.
        team: The sub-agents where the run is given none.
    """

    async def prepare(state: HierarchicalInput, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        # Before anything is written: a run with an impossible team leaves no message behind.
        checked = complete_team(state.sub_agents or team, deps.tools)
        return {
            **reset_context(state.background),
            "messages": [HumanMessage(make_storable(state.task), id=str(uuid4()))],
            "team": checked,
            "round_limit": state.max_rounds,
            "rounds": 0,
            "subtasks": [],
            "told_back": "",
            "success": False,
            "result": "",
            "reason": None,
        }

    return prepare
