"""The service that ``benchmarks/service.py`` measures, with two more graphs and a model that never waits.

``steps`` has seven steps, one of which streams 80 tokens, so that nearly all of the time is the service's;
``step`` has one, without a model. It runs in processes of its own, as many as ``WORKERS`` says: ``python -m
benchmarks.served`` prints its address when it is ready.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, AnyMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from core.context import Context
from core.models import ChatModels, ModelInfo
from core.settings import Settings
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.shared.channels import Messages

NAME: Final = "steps"
SHORT_NAME: Final = "step"
STEPS: Final = 7
TOKENS: Final = 80
# The number of the step that calls the model.
SPEAKS: Final = 4
INFO: Final = ModelInfo(
    model="scripted",
    reasoning_model="scripted",
    fallback_model=None,
    is_language_model=False,
    why="it is measured what the service costs without one",
)


class TokensModel(BaseChatModel):
    """Streams ``TOKENS`` tokens without waiting, and yields to other tasks between them."""

    @property
    def _llm_type(self) -> str:
        return "tokens"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("the service is asynchronous")

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index in range(TOKENS):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"word{index} "))
            await asyncio.sleep(0)
        last = AIMessageChunk(
            content="",
            response_metadata={"finish_reason": "stop"},
            usage_metadata={"input_tokens": len(messages), "output_tokens": TOKENS, "total_tokens": TOKENS},
        )
        yield ChatGenerationChunk(message=last)


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

    def announce(url: str) -> None:
        print(url, flush=True)

    def serve(settings: Settings) -> None:
        models = ChatModels(INFO, lambda _: TokensModel())
        if settings.server.workers == 1:
            run_in_loop(
                serve_until_signal(settings, models=models, announce=lambda running: announce(running.url))
            )
        else:
            supervise(settings, models, lambda _, url: announce(url))

    return report_exit(serve)


if __name__ == "__main__":
    sys.exit(main())
