"""A worker carries out its subtask."""

import asyncio
from collections.abc import Sequence
from string import Template
from typing import Any, Literal, TypeAlias

from langgraph.errors import NodeTimeoutError
from langgraph.runtime import Runtime

from core.context import Context
from core.errors import CrmError, ModelError
from core.texts import cut, fence, make_storable
from nodes.deps import Node
from nodes.hierarchical.state import SubAgent, Subtask, WorkInput
from nodes.react.state import ReactOutput
from nodes.shared.agent import Agent
from nodes.shared.prompts import load_prompt

# Most rounds of thought of a worker: a part of a task needs fewer than a whole one.
MAX_ITERATIONS = 6
# Of a worker as a whole, below the limit of its step, which would end the run.
WORK_TIMEOUT_SECONDS = 200.0
# Together with the subtask and the instruction below what an agent's task may have.
RESULTS_CHARACTERS = 10_000

Outcome: TypeAlias = Literal["done", "failed"]


def work(agent: Agent) -> Node[WorkInput, dict[str, Any]]:
    """Node: carry out the subtask it is sent.

    What fails in a foreseen way (the model, the CRM, a connection, time) fails the subtask and leaves its
    siblings be. Anything else is a bug and ends the run, which can be resumed when it is mended.
    """
    template = Template(load_prompt("hierarchical_work"))

    async def work(state: WorkInput, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        subtask = state["subtask"]
        try:
            async with asyncio.timeout(WORK_TIMEOUT_SECONDS):
                answer = await agent(
                    state["subtask"]["task"],
                    contact_id=state["contact_id"],
                    instruction=briefing(template, state["agent"]),
                    background=background(state["background"], state["results"]),
                    tools=state["agent"].get("tools", []),
                    max_iterations=MAX_ITERATIONS,
                )
        except (ModelError, CrmError) as error:
            return _broken(subtask, error.message)
        except (TimeoutError, NodeTimeoutError):
            return _broken(subtask, "it took longer than it may")
        except ConnectionError as error:
            return _broken(subtask, f"a connection failed ({type(error).__name__})")
        if not answer["success"]:
            return _update(subtask, "failed", answer["final_answer"], _shortcoming(answer))
        return _update(subtask, "done", answer["final_answer"])

    return work


def briefing(template: Template, agent: SubAgent) -> str:
    """What a worker is told beside its subtask: who it is, and that it has a part of the whole."""
    return template.substitute(name=agent["name"], instruction=agent.get("instruction", "")).strip()


def background(known: str, results: Sequence[Subtask]) -> str:
    """The run's background, and what the subtasks before this one brought, the space shared equally."""
    if not results:
        return known
    share = RESULTS_CHARACTERS // max(len(results), 1)
    told = [f"{each['id']}, {each['agent']}:\n{cut(each['result'], share)}" for each in results]
    return "\n\n".join(filter(None, (known, fence("results", "\n\n".join(told)))))


def _broken(subtask: Subtask, reason: str) -> dict[str, Any]:
    """Broken off; the manager must know that a message may have been sent all the same."""
    return _update(subtask, "failed", reason=f"{reason.rstrip('.')}; what it had done by then is not known")


def _shortcoming(answer: ReactOutput) -> str:
    """Why a worker did not succeed, and what it did nevertheless."""
    called = [
        entry["action"]["tool"]
        for entry in answer["trace"]
        if entry["action"] and entry["observation"] and entry["observation"]["success"]
    ]
    did = f"; these tools did what they do: {', '.join(dict.fromkeys(called))}" if called else ""
    return f"{answer['reason_incomplete']}{did}"


def _update(subtask: Subtask, status: Outcome, result: str = "", reason: str | None = None) -> dict[str, Any]:
    ended: Subtask = {**subtask, "status": status, "result": make_storable(result), "reason": reason}
    return {"subtasks": [ended]}
