"""Agents that consult each other: an agent as a tool of another one.

A consulted agent is a ReAct subgraph within the tool call, so that traces and checkpoints show it there. It
reads and changes nothing, has thoughts of its own to spend, and cannot consult anybody itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

from langchain_core.tools import ToolException

from agents.spec import AgentSpec
from core.errors import CrmError, ModelError
from core.models import private_replies
from graphs.react import build_react
from graphs.spec import run_subgraph
from nodes.coordinator.specialists import build_instruction
from nodes.deps import Deps
from nodes.react.state import ReactInput, ReactOutput
from tools.catalogue import READING_TOOLS
from tools.consultation import Consultation, consult_agent_tool
from tools.execution import CallContext

# A consulted agent answers a part of a question, while a customer waits for the whole of it.
MAX_THOUGHTS: Final = 4


def add_consultation(deps: Deps) -> Deps:
    """Return the dependencies with the tool by which an agent consults another one of the registry."""
    tools = {name: tool for name, tool in deps.tools.items() if name in READING_TOOLS}
    graph = build_react(replace(deps, tools=tools)).compile(name="agent")

    async def consult(agent: str, question: str, context: CallContext) -> Consultation:
        spec = deps.agents.specs[agent]
        task = ReactInput(
            task=question,
            contact_id=context.contact_id,
            max_iterations=MAX_THOUGHTS,
            reflection="never",
            instruction=build_instruction(spec),
            tools=_select_reading_tools(spec, list(tools)),
            temperature=spec.temperature,
            retrieval=spec.retrieval,
            agent=spec.name,
            time_zone=context.time_zone,
        )
        try:
            # Its words are for the agent that asks: no client is to see them as an answer.
            with private_replies():
                output = cast("ReactOutput", await run_subgraph(graph, task))
        except (ModelError, CrmError) as error:
            raise ToolException(f"{agent} could not answer: {error.message}") from error
        if not output["success"]:
            raise ToolException(f"{agent} could not answer: {output['reason_incomplete']}")
        return Consultation(
            answer=output["final_answer"],
            steps=_list_steps(output),
            citations=[{**citation} for citation in output["citations"]],
            unsupported=output["unsupported"],
        )

    descriptions = {name: spec.description for name, spec in deps.agents.specs.items()}
    tool = consult_agent_tool(descriptions, consult)
    return replace(deps, tools={**deps.tools, tool.name: tool})


def _select_reading_tools(spec: AgentSpec, existing: Sequence[str]) -> list[str]:
    """Return those of the agent's tools that only read; all that do for an agent without any."""
    return [name for name in existing if name in spec.tools] or list(existing)


def _list_steps(output: ReactOutput) -> list[str]:
    steps = []
    for entry in output["trace"]:
        action, observation = entry["action"], entry["observation"]
        if action and observation:
            steps.append(f"{action['tool']}: {'success' if observation['success'] else 'failed'}")
    return steps
