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
from core.metrics import current_meter
from core.texts import make_storable
from nodes.coordinator.patterns import Answer, Specialist
from nodes.coordinator.state import Attempt, Outcome, SpecialistInput
from nodes.deps import Deps, Node, get_run_context

log = get_logger(__name__)

# Of an agent's work; with a fallback after it, well within the time of a run.
SPECIALIST_SECONDS = 120.0


def specialist(deps: Deps, specialists: Mapping[str, Specialist]) -> Node[SpecialistInput, dict[str, Any]]:
    """Node: have the agent answer.

    What fails in a foreseen way (the model, the CRM, time) is an attempt that failed, and another agent is
    asked. Anything else is a bug and ends the run, which can be resumed.
    """
    registry, health = deps.agents, deps.agents.health

    async def specialist(state: SpecialistInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
        spec = registry.specs.get(state["agent"])
        if spec is None:
            # A run that was stopped goes on with the agents of today.
            gone = _failed(state["agent"], "failed", "there is no such agent any more")
            return {"attempts": [gone]}
        with current_meter().track_agent(spec.name) as counted:
            attempt = await attempted(spec, state, get_run_context(runtime))
            counted.outcome = attempt["outcome"]
        (health.record_success if attempt["outcome"] == "answered" else health.record_failure)(spec.name)
        return {"attempts": [attempt]}

    async def attempted(spec: AgentSpec, state: SpecialistInput, context: Context) -> Attempt:
        limit = asyncio.timeout(SPECIALIST_SECONDS)
        try:
            async with limit:
                answer = await specialists[spec.name](spec, state, context)
        except (ModelError, CrmError, NotFound) as error:
            return _failed(spec.name, "failed", error.message)
        except (TimeoutError, NodeTimeoutError):
            return _failed(spec.name, "timed_out", f"it took longer than {SPECIALIST_SECONDS:g} s")
        return _ended(spec, answer)

    return specialist


def _ended(spec: AgentSpec, answer: Answer) -> Attempt:
    answered = answer["success"] and bool(answer["response"].strip())
    return Attempt(
        agent=spec.name,
        outcome="answered" if answered else "failed",
        reason="" if answered else answer["reason"] or "its answer was empty",
        response=make_storable(answer["response"]),
        actions=answer["actions"],
        called=answer["called"],
    )


def _failed(agent: str, outcome: Outcome, reason: str) -> Attempt:
    """Broken off. What it had done by then is in its own checkpoints, and not known here."""
    log.warning("agent_failed", agent=agent, outcome=outcome, reason=reason)
    return Attempt(agent=agent, outcome=outcome, reason=reason, response="", actions=[], called=None)
