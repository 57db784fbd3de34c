"""Carry out one step of a wave; the others of the wave are tasks of their own."""

import asyncio
from typing import Any

from langgraph.errors import NodeTimeoutError
from langgraph.runtime import Runtime

from core.context import Context
from core.errors import ModelError
from nodes.deps import Node
from nodes.planning_monitor.briefing import clipped, step_background, step_instruction
from nodes.planning_monitor.schema import PlanStep
from nodes.planning_monitor.state import Action, ExecuteInput, StepResult, WhyStepFailed
from nodes.react.state import ReactOutput
from nodes.shared.agent import Agent
from nodes.shared.prompts import load_prompt

# A step is a small task: one that needs more is better divided by an adjustment.
STEP_ITERATIONS = 6
# A wave waits for its slowest step.
STEP_SECONDS = 600.0
# Of an agent's answer; what follows is in the agent's own checkpoints.
RESULT_CHARACTERS = 4_000
_MOST_ACTIONS = 20
_CUT_OFF = "What the step had called before may have had its effect."


def execute(agent: Agent) -> Node[ExecuteInput, dict[str, Any]]:
    """Node: give the step to an agent. A step that fails is a result too, and does not lose the others."""
    note = load_prompt("planning_monitor_step")

    async def execute(state: ExecuteInput, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        step = PlanStep.model_validate(state["step"])
        limit = asyncio.timeout(STEP_SECONDS)
        try:
            async with limit:
                output = await agent(
                    step.task,
                    contact_id=state["contact_id"],
                    instruction=step_instruction(state, note),
                    background=step_background(state),
                    tools=step.tools,
                    max_iterations=STEP_ITERATIONS,
                )
        except ModelError as error:
            return {"results": [_failed(step, "model_unavailable", error.message)]}
        except NodeTimeoutError as error:
            return {"results": [_failed(step, "timed_out", str(error))]}
        except TimeoutError:
            if not limit.expired():
                raise
            return {"results": [_failed(step, "timed_out", f"it took longer than {STEP_SECONDS:g} s")]}
        return {"results": [_result(step, output)]}

    return execute


def _result(step: PlanStep, output: ReactOutput) -> StepResult:
    observed = [(entry["action"], entry["observation"]) for entry in output["trace"]]
    actions = [
        Action(tool=action["tool"], success=observation["success"])
        for action, observation in observed
        if action and observation
    ]
    return StepResult(
        step_id=step.step_id,
        task=step.task,
        success=output["success"],
        result=clipped(output["final_answer"], RESULT_CHARACTERS),
        iterations=output["iterations"],
        reason_incomplete=output["reason_incomplete"],
        actions=actions[-_MOST_ACTIONS:],
    )


def _failed(step: PlanStep, reason: WhyStepFailed, words: str) -> StepResult:
    """The result of a step that was cut off; what its agent did until then is not known here."""
    return StepResult(
        step_id=step.step_id,
        task=step.task,
        success=False,
        result=f"{words.rstrip('.')}. {_CUT_OFF}",
        iterations=0,
        reason_incomplete=reason,
        actions=[],
    )
