"""What came of the agents' work, and who goes on."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from nodes.coordinator.choice import by_default
from nodes.coordinator.handing_over import called
from nodes.coordinator.router import GENERAL, AgentRegistry
from nodes.coordinator.state import NO_HANDOFF, Attempt, CoordinatorState, Dispatch, Handoff
from nodes.deps import Deps, Node

# Where no rule names another team.
TEAM = "support"

Next: TypeAlias = Command[Literal["merge", "assemble", "hand_over", "record"]]


def collect(deps: Deps) -> Node[CoordinatorState, Next]:
    """Node: take the answer, have two merged, ask the general agent, or call a person."""
    agents = deps.agents

    async def collect(state: CoordinatorState, *, runtime: Runtime[Context]) -> Next:  # noqa: ARG001
        good = [attempt for attempt in state["attempts"] if attempt["outcome"] == "answered"]
        tried = [attempt["agent"] for attempt in state["attempts"]]
        handoff = _handoff(state, agents)
        if len(good) > 1:
            return Command(goto="merge", update={**_answered(state, good[0]), "handoff": handoff})
        if good:
            update = {**_answered(state, good[0]), "handoff": handoff, "path": _path(state, good[0])}
            return Command(goto="record", update=update)
        if GENERAL not in tried:
            fallback = _fallback(state, agents)
            return Command(goto="assemble", update={"dispatched": [*state["dispatched"], fallback]})
        nobody = called(_team(state, agents), f"no agent could answer: {_failures(state)}")
        return Command(goto="hand_over", update={"handoff": nobody})

    return collect


def _answered(state: CoordinatorState, attempt: Attempt) -> dict[str, Any]:
    chosen = next(each for each in state["dispatched"] if each["agent"] == attempt["agent"])
    return {
        "success": True,
        "response": attempt["response"],
        "agent_used": attempt["agent"],
        "category": chosen["category"],
        "confidence": chosen["confidence"],
    }


def _path(state: CoordinatorState, attempt: Attempt) -> Literal["agent", "general"]:
    return "general" if attempt["agent"] == GENERAL and len(state["attempts"]) > 1 else "agent"


def _fallback(state: CoordinatorState, agents: AgentRegistry) -> Dispatch:
    known = next((each["confidence"] for each in state["alternatives"] if each["agent"] == GENERAL), 0.0)
    return by_default(agents, state["message"], "fallback", known)


def _handoff(state: CoordinatorState, agents: AgentRegistry) -> Handoff:
    """Called by an agent, or recommended as one failed: now, or again and again."""
    for attempt in state["attempts"]:
        if said := attempt["called"]:
            return {**called(said["team"], said["reason"]), "recorded": True}
    health = agents.health
    tired = [
        attempt["agent"] for attempt in state["attempts"] if health.recommends_escalation(attempt["agent"])
    ]
    if tired:
        reason = f"{tired[0]} failed {health.count_failures(tired[0])} times in a row"
        return called(_team(state, agents), reason)
    if _failed(state["attempts"]):
        reason = f"not all of it was answered: {_failures(state)}"
        return called(_team(state, agents), reason)
    return NO_HANDOFF


def _team(state: CoordinatorState, agents: AgentRegistry) -> str:
    """Whom the agent that failed would have called."""
    spec = agents.specs.get(state["dispatched"][0]["agent"])
    return spec.team if spec else TEAM


def _failures(state: CoordinatorState) -> str:
    return "; ".join(f"{each['agent']}: {each['reason']}" for each in _failed(state["attempts"]))


def _failed(attempts: Sequence[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt["outcome"] != "answered"]
