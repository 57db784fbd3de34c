"""What the patterns' outputs mean to the customer."""

from collections.abc import Sequence

from nodes.coordinator.patterns import Answer
from nodes.coordinator.state import TeamCall
from nodes.critique_refine.state import CritiqueRefineOutput
from nodes.planning_monitor.state import PlanningOutput
from nodes.react.state import ReactOutput, TraceEntry

# The tool that calls a person.
CALLS_A_PERSON = "hand_over_to_human"


def of_react(output: ReactOutput) -> Answer:
    """An agent's own answer."""
    return Answer(
        success=output["success"],
        response=output["final_answer"],
        reason=output["reason_incomplete"] or "",
        actions=_done(output["trace"]),
        called=_called(output["trace"]),
    )


def of_critique_refine(output: CritiqueRefineOutput) -> Answer:
    """A text that was written. One below its critics' mark is the best there is, where it may be sent."""
    validation = output["validation"]
    usable = output["success"] or bool(output["output"] and validation and validation["approved"])
    return Answer(
        success=usable,
        response=output["output"],
        reason="" if usable else output["reason"] or "",
        actions=[],
        called=None,
    )


def of_planning_monitor(output: PlanningOutput) -> Answer:
    """What was done, as the plan's own report: it is not yet worded for the customer."""
    actions = [
        action["tool"] for result in output["results"] for action in result["actions"] if action["success"]
    ]
    called = CALLS_A_PERSON in actions
    return Answer(
        success=output["completed"],
        response=output["messages"][-1].text,
        reason=output["reason"] or "",
        actions=actions,
        called=TeamCall(team="support", reason="a step of the plan called a person") if called else None,
    )


def _done(trace: Sequence[TraceEntry]) -> list[str]:
    return [
        entry["action"]["tool"]
        for entry in trace
        if entry["action"] and entry["observation"] and entry["observation"]["success"]
    ]


def _called(trace: Sequence[TraceEntry]) -> TeamCall | None:
    for entry in trace:
        action, observed = entry["action"], entry["observation"]
        if action and observed and observed["success"] and action["tool"] == CALLS_A_PERSON:
            said = action["args"]
            return TeamCall(team=str(said.get("team", "")), reason=str(said.get("reason", "")))
    return None
