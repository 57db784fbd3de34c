"""Begin a round: the subtasks the manager named, if they can be carried out."""

from collections.abc import Sequence
from typing import Any, Literal

from langgraph.types import Command

from core.texts import cut
from nodes.hierarchical.endings import ended
from nodes.hierarchical.plan import PlannedSubtask, find_faults, number_subtasks, wave
from nodes.hierarchical.state import HierarchicalState

# Of what the manager wrote, when it is told back.
_PLAN_CHARACTERS = 4_000


def begun(
    state: HierarchicalState,
    planned: Sequence[PlannedSubtask],
    *,
    asked_by: Literal["decompose", "decide"],
    best: str = "",
) -> Command[Any]:
    """Send the first wave of the subtasks to work.

    Subtasks that cannot be carried out are told back, with all that is wrong with them, to the node that
    asked for them; a second time, they end the run.

    Args:
        state: The run's state.
        planned: What the manager named.
        asked_by: The node that asked.
        best: The manager's answer so far.
    """
    earlier = state["subtasks"]
    wrong = find_faults(planned, [agent["name"] for agent in state["team"]], earlier)
    if wrong and state["told_back"]:
        end = ended(earlier, "decomposition_invalid", detail="; ".join(wrong), best=best)
        return Command(goto="finish", update=end)
    if wrong:
        return Command(goto=asked_by, update={"told_back": _told_back(planned, wrong)})
    new = number_subtasks(planned, earlier)
    update = {"subtasks": new, "rounds": state["rounds"] + 1, "told_back": ""}
    return Command(goto=wave(state, [*earlier, *new]), update=update)


def _told_back(planned: Sequence[PlannedSubtask], wrong: Sequence[str]) -> str:
    lines = [f"{each.number}. {each.agent}, after {each.depends_on}: {each.task}" for each in planned]
    return "\n".join(
        [
            "[Your subtasks cannot be carried out] They were:",
            cut("\n".join(lines), _PLAN_CHARACTERS),
            "What is wrong with them:",
            *(f"- {fault}" for fault in wrong),
            "Answer again, in the form asked for, with all subtasks.",
        ]
    )
