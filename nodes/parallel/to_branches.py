"""The question goes to every agent."""

from langgraph.types import Send

from nodes.parallel.state import BranchInput, ParallelState


def to_branches(state: ParallelState) -> list[Send]:
    """Edge: a task of ``branch`` for each agent."""
    sent = [
        BranchInput(
            agent=agent,
            question=state["question"],
            contact_id=state["contact_id"],
            seconds=state["seconds"],
            race=state["race"],
            background=state["background"],
        )
        for agent in state["asked"]
    ]
    return [Send("branch", each) for each in sent]
