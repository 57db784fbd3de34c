"""One agent's attempt at the question, within its time."""

import asyncio
from typing import Any

from langgraph.errors import NodeTimeoutError
from langgraph.runtime import Runtime

from core.context import Context
from core.errors import CrmError, ModelError
from nodes.deps import Node
from nodes.parallel.races import Race, Races
from nodes.parallel.state import Branch, BranchInput, Status
from nodes.react.state import ReactOutput
from nodes.shared.agent import Agent
from nodes.shared.prompts import load_prompt

# An agent has a part of the sources, and others answer too: it needs fewer rounds than a whole task.
MAX_ITERATIONS = 5


def branch(agent: Agent, races: Races) -> Node[BranchInput, dict[str, Any]]:
    """Node: have the agent answer.

    A model that fails, the time limit and a lost race end this branch and no other. Anything else is a bug
    and ends the run, which can be resumed.
    """
    rules = load_prompt("parallel_task")

    async def branch(state: BranchInput, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        race = races.of(state["race"])
        if race.lost_by(state["agent"]["name"]):
            return _ended(state, "cancelled", race)
        limit = asyncio.timeout(state["seconds"])
        try:
            async with limit:
                with race.running(limit):
                    output = await _answer(agent, rules, state)
        except (ModelError, CrmError) as error:
            return _ended(state, "failed", race, why=error.message)
        except (TimeoutError, NodeTimeoutError):
            return _ended(state, "cancelled" if race.lost_by(state["agent"]["name"]) else "timed_out", race)
        return _judged(state, output, race)

    return branch


async def _answer(agent: Agent, rules: str, state: BranchInput) -> ReactOutput:
    spec = state["agent"]
    return await agent(
        state["question"],
        contact_id=state["contact_id"],
        instruction=f"{spec['instruction']}\n\n{rules}".strip(),
        background=state["background"],
        tools=spec["tools"],
        max_iterations=MAX_ITERATIONS,
    )


def _judged(state: BranchInput, output: ReactOutput, race: Race) -> dict[str, Any]:
    """An answer is good when the agent calls it a success and it says something."""
    answer = output["final_answer"]
    if not output["success"] or not answer.strip():
        why = output["reason_incomplete"] or "the answer is empty"
        return _ended(state, "failed", race, answer=answer, why=why)
    if not race.won_by(state["agent"]["name"]):
        return _ended(state, "cancelled", race)
    return _ended(state, "answered", race, answer=answer)


def _ended(
    state: BranchInput, status: Status, race: Race, *, answer: str = "", why: str = ""
) -> dict[str, Any]:
    reasons: dict[Status, str] = {
        "timed_out": f"there was no answer within {state['seconds']:g} seconds",
        "cancelled": f"{race.winner} answered first",
    }
    ended = Branch(name=state["agent"]["name"], status=status, answer=answer, reason=reasons.get(status, why))
    return {"branches": [ended]}
