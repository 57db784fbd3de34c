"""Which subtasks can begin: the dependency graph, walked in waves.

LLMCompiler (Kim et al. 2023, arXiv 2312.04511) begins a task the moment that what it depends on is there.
Here it begins with the next wave, as each wave ends with a checkpoint from which a killed run goes on.
"""

from collections.abc import Sequence

from langgraph.types import Send

from nodes.hierarchical.state import HierarchicalState, Subtask, WorkInput


def ready(subtasks: Sequence[Subtask]) -> list[Subtask]:
    """The pending subtasks whose dependencies are all done."""
    done = {subtask["id"] for subtask in subtasks if subtask["status"] == "done"}
    return [
        subtask
        for subtask in subtasks
        if subtask["status"] == "pending" and done >= set(subtask["depends_on"])
    ]


def skipped(subtasks: Sequence[Subtask]) -> list[Subtask]:
    """The pending subtasks that can never begin, as skipped, each with the reason."""
    lost = {each["id"]: each["status"] for each in subtasks if each["status"] in {"failed", "skipped"}}
    waiting = [subtask for subtask in subtasks if subtask["status"] == "pending"]
    found: list[Subtask] = []
    while stuck := [subtask for subtask in waiting if lost.keys() & set(subtask["depends_on"])]:
        for subtask in stuck:
            on = next(each for each in subtask["depends_on"] if each in lost)
            was = "failed" if lost[on] == "failed" else "was skipped"
            found.append({**subtask, "status": "skipped", "reason": f"it depends on {on}, which {was}"})
            waiting.remove(subtask)
        lost |= {subtask["id"]: "skipped" for subtask in stuck}
    return found


def wave(state: HierarchicalState, subtasks: Sequence[Subtask]) -> list[Send]:
    """A task of ``work`` for each subtask that is ready.

    Args:
        state: The run's state.
        subtasks: All subtasks, with what the state does not hold yet.
    """
    agents = {agent["name"]: agent for agent in state["team"]}
    known = {subtask["id"]: subtask for subtask in subtasks}
    return [
        Send(
            "work",
            WorkInput(
                subtask=subtask,
                agent=agents[subtask["agent"]],
                results=[known[each] for each in subtask["depends_on"]],
                background=state["background"],
                contact_id=state["contact_id"],
            ),
        )
        for subtask in ready(subtasks)
    ]
