"""The ReAct graph as an agent that other graphs give tasks to."""

from collections.abc import Sequence
from typing import Any, cast

from core.memory import StrategyName
from graphs.react import build_react
from nodes.deps import Deps
from nodes.react.state import ReactInput, ReactOutput
from nodes.shared.agent import Agent


def react_agent(deps: Deps) -> Agent:
    """Compile the ReAct graph as an agent, with the checkpointer of the graph that calls it."""
    graph = build_react(deps).compile(name="agent")

    async def run(
        task: str,
        *,
        contact_id: str,
        instruction: str = "",
        background: str = "",
        tools: Sequence[str] = (),
        max_iterations: int = 6,
        temperature: float = 0.2,
        retrieval: StrategyName = "general",
    ) -> ReactOutput:
        run_input = ReactInput(
            task=task,
            contact_id=contact_id,
            instruction=instruction,
            background=background,
            tools=list(tools),
            max_iterations=max_iterations,
            temperature=temperature,
            retrieval=retrieval,
        )
        return cast("ReactOutput", await graph.ainvoke(cast("Any", run_input.model_dump())))

    return run
