"""A specialised agent works on the message, within its time."""

import asyncio
from collections.abc import Mapping
from typing import Any

from langgraph.errors import NodeTimeoutError
from langgraph.runtime import Runtime

from agents.spec import AgentSpec
from core.context import Context
from core.errors import CrmError, ModelError, NotFound
from core.logging import get_logger
from core.texts import storable
from nodes.coordinator.patterns import Answer, Specialist
from nodes.coordinator.state import Attempt, Outcome, SpecialistInput
from nodes.deps import Deps, Node, run_context

log = get_logger(__name__)

# Of an agent's work; with a fallback after it, well within the time of a run.
SPECIALIST_SECONDS = 120.0


def specialist(deps: Deps, specialists: Mapping[str, Specialist]) -> Node[SpecialistInput, dict[str, Any]]:
    """Node: have the agent answer.

    What fails in a foreseen way (the model, the CRM, time) is an attempt that failed, and another agent is
    asked. Anything else is a bug and ends the run, which can be resumed.
    """
    roster = deps.roster

    async def specialist(state: SpecialistInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
        spec = roster.agents.get(state["agent"])
        if spec is None:
            # A run that was stopped goes on with the agents of today.
            return _failed(state["agent"], "failed", "there is no such agent any more")
        limit = asyncio.timeout(SPECIALIST_SECONDS)
        try:
            async with limit:
                answer = await specialists[spec.name](spec, state, run_context(runtime))
        except (ModelError, CrmError, NotFound) as error:
            roster.health.failed(spec.name)
            return _failed(spec.name, "failed", error.message)
        except (TimeoutError, NodeTimeoutError):
            roster.health.failed(spec.name)
            return _failed(spec.name, "timed_out", f"it took longer than {SPECIALIST_SECONDS:g} s")
        return _ended(deps, spec, answer)

    return specialist


def _ended(deps: Deps, spec: AgentSpec, answer: Answer) -> dict[str, Any]:
    answered = answer["success"] and bool(answer["response"].strip())
    count = deps.roster.health.succeeded if answered else deps.roster.health.failed
    count(spec.name)
    return _attempt(
        Attempt(
            agent=spec.name,
            outcome="answered" if answered else "failed",
            reason="" if answered else answer["reason"] or "its answer was empty",
            response=storable(answer["response"]),
            actions=answer["actions"],
            called=answer["called"],
        )
    )


def _failed(agent: str, outcome: Outcome, reason: str) -> dict[str, Any]:
    """Broken off. What it had done by then is in its own checkpoints, and not known here."""
    log.warning("agent_failed", agent=agent, outcome=outcome, reason=reason)
    return _attempt(
        Attempt(agent=agent, outcome=outcome, reason=reason, response="", actions=[], called=None)
    )


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {"attempts": [attempt]}
