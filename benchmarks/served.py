"""The service that ``benchmarks/service.py`` measures, with three more graphs and a model that never waits.

``steps`` has seven steps, one of which streams 80 tokens, so that nearly all of the time is the service's;
``step`` has one, without a model; ``shared`` (in one process only) is that of :mod:`benchmarks.shared_graph`.
It runs in processes of its own, as many as ``WORKERS`` says: ``python -m benchmarks.served`` prints its
address when it is ready.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, cast

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from benchmarks.shared_graph import SPEAKS, STEPS, TokensModel
from benchmarks.shared_graph import graph as shared_graph
from core.context import Context
from core.models import ChatModels, ModelInfo
from core.settings import Settings
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.shared.channels import Messages

NAME: Final = "steps"
SHORT_NAME: Final = "step"
# Knows nothing of this service: benchmarks/agent_server.py has another server serve it too.
SHARED_NAME: Final = "shared"
INFO: Final = ModelInfo(
    model="scripted",
    reasoning_model="scripted",
    fallback_model=None,
    is_language_model=False,
    why="it is measured what the service costs without one",
)


class StepsInput(BaseModel):
    """The input: a customer's message."""

    message: str = Field(min_length=1, max_length=20_000, description="What they wrote")
    contact_id: str = Field("", max_length=200, description="Who wrote")


class StepsOutput(TypedDict):
    """The output: the answer."""

    messages: Annotated[Sequence[AnyMessage], Field(description="The conversation")]
    steps: Annotated[int, Field(description="How many were taken")]


class StepsState(TypedDict):
    """The state between steps."""

    message: str
    contact_id: str
    messages: Messages
    steps: int


def build_steps(deps: Deps) -> StateGraph[StepsState, Context, StepsInput, StepsOutput]:
    """Build the graph, uncompiled: seven nodes in a row."""

    async def take(state: StepsState, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        return {"steps": (state.get("steps") or 0) + 1}

    async def speak(state: StepsState, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        said = HumanMessage(state["message"])
        reply = await deps.models.reply([*state["messages"], said], temperature=0)
        return {"messages": [said, reply], "steps": (state.get("steps") or 0) + 1}

    graph = StateGraph(StepsState, Context, input_schema=StepsInput, output_schema=StepsOutput)
    names = [f"step_{number}" for number in range(1, STEPS + 1)]
    for number, name in enumerate(names, start=1):
        graph.add_node(name, speak if number == SPEAKS else take)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph


SPEC: Final = GraphSpec(
    name=NAME,
    description="Seven steps, one of which streams 80 tokens.",
    build=build_steps,
    input_schema=StepsInput,
    output_schema=StepsOutput,
    durability="sync",
    recursion_limit=STEPS + 5,
    example={"message": "Hello"},
)


def build_step(deps: Deps) -> StateGraph[StepsState, Context, StepsInput, StepsOutput]:  # noqa: ARG001
    """Build the graph, uncompiled: one node."""

    async def take(state: StepsState, *, runtime: Runtime[Context]) -> dict[str, Any]:  # noqa: ARG001
        return {"messages": [HumanMessage(state["message"])], "steps": 1}

    graph = StateGraph(StepsState, Context, input_schema=StepsInput, output_schema=StepsOutput)
    graph.add_node("step", take)
    graph.add_edge(START, "step")
    graph.add_edge("step", END)
    return graph


SHORT_SPEC: Final = replace(SPEC, name=SHORT_NAME, description="One step, without a model.", build=build_step)


def main() -> int:
    """Serve until SIGINT or SIGTERM, as ``server.py`` does."""
    # Imported once the registry has the graphs, because the routes are made from the registry.
    cast("dict[str, GraphSpec]", REGISTRY).update({NAME: SPEC, SHORT_NAME: SHORT_SPEC})
    from service.cli.running import report_exit, run_in_loop  # noqa: PLC0415
    from service.cli.serve import serve_until_signal  # noqa: PLC0415
    from service.cli.supervisor import supervise  # noqa: PLC0415
    from service.runs.graphs import ForeignGraph  # noqa: PLC0415

    def announce(url: str) -> None:
        print(url, flush=True)

    def serve(settings: Settings) -> None:
        models = ChatModels(INFO, lambda _: TokensModel())
        if settings.server.workers == 1:
            run_in_loop(
                serve_until_signal(
                    settings,
                    models=models,
                    foreign=[ForeignGraph(name=SHARED_NAME, source=shared_graph)],
                    announce=lambda running: announce(running.url),
                )
            )
        else:
            supervise(settings, models, lambda _, url: announce(url))

    return report_exit(serve)


if __name__ == "__main__":
    sys.exit(main())
