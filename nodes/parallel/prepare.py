"""Begin a run on a thread: the question becomes a message, and every agent gets it."""

from typing import Literal, TypeAlias
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from core.context import Context
from nodes.deps import Deps, Node
from nodes.parallel.agents import checked
from nodes.parallel.state import BranchInput, ParallelInput

Next: TypeAlias = Command[Literal["branch"]]


def prepare(deps: Deps) -> Node[ParallelInput, Next]:
    """Node: open the turn, and send the question to each agent, none of which names an unknown tool."""

    async def prepare(state: ParallelInput, *, runtime: Runtime[Context]) -> Next:  # noqa: ARG001
        agents = checked(state.agents, deps.tools)
        turn = str(uuid4())
        race = turn if state.mode == "first" else ""
        update = {
            "messages": [HumanMessage(state.question, id=turn)],
            "race": race,
            "branches": [],
            "success": False,
            "answer": "",
            "answered_by": [],
            "reason": None,
        }
        sent = [
            BranchInput(
                agent=agent,
                question=state.question,
                contact_id=state.contact_id,
                seconds=state.branch_timeout_seconds,
                race=race,
            )
            for agent in agents
        ]
        return Command(goto=[Send("branch", each) for each in sent], update=update)

    return prepare
