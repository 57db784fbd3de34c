"""What each specialised agent runs on: the pattern its file names, as a subgraph."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from agents.spec import AgentSpec, Pattern
from core.context import Context
from graphs.agent import react_agent
from graphs.critique_refine import build_critique_refine
from graphs.planning_monitor import build_planning_monitor
from nodes.coordinator.answer import answering
from nodes.coordinator.briefing import instruction
from nodes.coordinator.outcomes import of_critique_refine, of_planning_monitor, of_react
from nodes.coordinator.patterns import Answer, Specialist
from nodes.coordinator.report import reporting
from nodes.coordinator.state import SpecialistInput
from nodes.critique_refine.state import CritiqueRefineInput, CritiqueRefineOutput
from nodes.deps import Deps
from nodes.planning_monitor.state import PlanningInput, PlanningOutput
from nodes.shared.agent import Agent, select_tools

# Most rounds of thought of an agent: the customer waits.
MAX_ITERATIONS = 8


def specialists(deps: Deps) -> Mapping[str, Specialist]:
    """Each agent of the registry by name. Subgraphs inherit the checkpointer of who calls them."""
    agent = react_agent(deps)
    made: Mapping[Pattern, Callable[[AgentSpec], Specialist]] = {
        "react": lambda _: _react(agent),
        "answer": lambda _: answering(deps),
        "critique_refine": lambda _: _critique_refine(deps),
        "planning_monitor": lambda spec: _planning_monitor(deps, spec),
    }
    return {name: made[spec.pattern](spec) for name, spec in deps.agents.specs.items()}


def _react(agent: Agent) -> Specialist:
    async def run(spec: AgentSpec, sent: SpecialistInput, _: Context) -> Answer:
        output = await agent(
            sent["task"],
            contact_id=sent["contact_id"],
            instruction=instruction(spec),
            background=sent["background"],
            tools=spec.tools,
            max_iterations=MAX_ITERATIONS,
            temperature=spec.temperature,
            retrieval=spec.retrieval,
        )
        return of_react(output)

    return run


def _critique_refine(deps: Deps) -> Specialist:
    graph = build_critique_refine(deps).compile(name="agent")

    async def run(spec: AgentSpec, sent: SpecialistInput, _: Context) -> Answer:
        given = CritiqueRefineInput(
            prompt=sent["task"],
            contact_id=sent["contact_id"],
            instruction=instruction(spec),
            background=sent["background"],
        )
        return of_critique_refine(cast("CritiqueRefineOutput", await graph.ainvoke(given)))

    return run


def _planning_monitor(deps: Deps, spec: AgentSpec) -> Specialist:
    """A graph of its own, as its plans may use the agent's tools and no others."""
    graph = build_planning_monitor(replace(deps, tools=select_tools(deps.tools, spec.tools))).compile(
        name="agent"
    )
    report = reporting(deps)

    async def run(spec: AgentSpec, sent: SpecialistInput, context: Context) -> Answer:
        given = PlanningInput(
            task=sent["task"],
            contact_id=sent["contact_id"],
            instruction=instruction(spec),
            background=sent["background"],
        )
        output = cast("PlanningOutput", await graph.ainvoke(given))
        return await report(spec, sent, of_planning_monitor(output), context)

    return run
