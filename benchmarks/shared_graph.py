"""The graph that ``benchmarks/agent_server.py`` has two servers serve: seven steps, one streams 80 tokens.

It needs LangGraph alone, so that a server in another environment can load this file by its path.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

STEPS: Final = 7
TOKENS: Final = 80
# The number of the step that calls the model.
SPEAKS: Final = 4


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
        raise NotImplementedError("the servers are asynchronous")

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


class SharedState(TypedDict, total=False):
    """The state: the customer's message, the conversation, and how many steps were taken."""

    message: str
    messages: Annotated[list[AnyMessage], add_messages]
    steps: int


async def _take(state: SharedState) -> dict[str, Any]:
    return {"steps": state.get("steps", 0) + 1}


async def _speak(state: SharedState) -> dict[str, Any]:
    said = HumanMessage(state["message"])
    chunks = [chunk async for chunk in TokensModel().astream([*state.get("messages", []), said])]
    reply = AIMessage("".join(str(chunk.text) for chunk in chunks), id=chunks[0].id)
    return {"messages": [said, reply], "steps": state.get("steps", 0) + 1}


def build_shared_graph() -> StateGraph[SharedState, None, SharedState, SharedState]:
    """Build the graph, uncompiled: seven nodes in a row."""
    graph = StateGraph(SharedState)
    names = [f"step_{number}" for number in range(1, STEPS + 1)]
    for number, name in enumerate(names, start=1):
        graph.add_node(name, _speak if number == SPEAKS else _take)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph


graph = build_shared_graph().compile()
