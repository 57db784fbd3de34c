"""Build what runs each specialised agent: the pattern that its file names, as a subgraph."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import cast

from agents.spec import AgentSpec
from core.context import Context
from graphs.consultation import add_consultation
from graphs.critique_refine import build_critique_refine
from graphs.planning_monitor import build_planning_monitor
from graphs.react import react_agent
from graphs.spec import run_subgraph
from nodes.coordinator.specialists import (
    Answer,
    Specialist,
    answer_directly,
    build_instruction,
    get_task_time_zone,
    read_critique_refine_output,
    read_planning_output,
    read_react_output,
    write_report,
)
from nodes.coordinator.state import SpecialistInput
from nodes.critique_refine.state import CritiqueRefineInput, CritiqueRefineOutput
from nodes.deps import Deps
from nodes.planning_monitor.state import PlanningInput, PlanningOutput
from nodes.shared.agent import Agent, select_tools

# The customer waits.
MAX_ITERATIONS = 8


def build_specialists(deps: Deps) -> Mapping[str, Specialist]:
    """Return what runs each agent of the registry, by name; agents may consult each other.

    Subgraphs inherit the checkpointer of the graph that calls them.
    """
    deps = add_consultation(deps)
    react = _build_react_specialist(react_agent(deps))
    critique_refine = _build_critique_refine_specialist(deps)
    specialists: dict[str, Specialist] = {}
    for name, spec in deps.agents.specs.items():
        match spec.pattern:
            case "react":
                specialists[name] = react
            case "answer":
                specialists[name] = partial(answer_directly, deps)
            case "critique_refine":
                specialists[name] = critique_refine
            case "planning_monitor":
                specialists[name] = _build_planning_specialist(deps, spec)
    return specialists


def _build_react_specialist(agent: Agent) -> Specialist:
    async def run(spec: AgentSpec, task: SpecialistInput, _: Context) -> Answer:
        output = await agent(
            task["task"],
            contact_id=task["contact_id"],
            instruction=build_instruction(spec),
            background=task["background"],
            time_zone=get_task_time_zone(task),
            tools=spec.tools,
            max_iterations=MAX_ITERATIONS,
            temperature=spec.temperature,
            retrieval=spec.retrieval,
            agent=spec.name,
        )
        return read_react_output(output)

    return run


def _build_critique_refine_specialist(deps: Deps) -> Specialist:
    graph = build_critique_refine(deps).compile(name="agent")

    async def run(spec: AgentSpec, task: SpecialistInput, _: Context) -> Answer:
        graph_input = CritiqueRefineInput(
            prompt=task["task"],
            contact_id=task["contact_id"],
            instruction=build_instruction(spec),
            background=task["background"],
        )
        output = cast("CritiqueRefineOutput", await run_subgraph(graph, graph_input))
        return read_critique_refine_output(output)

    return run


def _build_planning_specialist(deps: Deps, spec: AgentSpec) -> Specialist:
    """Build a graph for this agent alone, because its plans may use only the agent's tools."""
    graph = build_planning_monitor(replace(deps, tools=select_tools(deps.tools, spec.tools))).compile(
        name="agent"
    )

    async def run(spec: AgentSpec, task: SpecialistInput, context: Context) -> Answer:
        graph_input = PlanningInput(
            task=task["task"],
            contact_id=task["contact_id"],
            instruction=build_instruction(spec),
            background=task["background"],
        )
        output = cast("PlanningOutput", await run_subgraph(graph, graph_input))
        return await write_report(deps, spec, task, read_planning_output(output), context)

    return run
