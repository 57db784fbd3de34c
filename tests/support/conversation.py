"""A minimal conversational graph, and the layouts in which its messages may be stored."""

from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from checkpoints.saver import GroupCommitSaver
from core.postgres import Pool
from nodes.shared.channels import Messages
from tests.support.savers import saver_on

Conversation = CompiledStateGraph[Any, Any, Any, Any]


class Talk(TypedDict):
    """The state with the product's channel for messages."""

    messages: Messages
    asks: bool


class StockTalk(TypedDict):
    """The state with ``add_messages``, as in LangGraph's examples."""

    messages: Annotated[list[AnyMessage], add_messages]
    asks: bool


async def replica(pool: Pool) -> GroupCommitSaver:
    """Open a saver that has not read anything yet; it closes with the ``pool`` fixture."""
    return await saver_on(pool)


def conversation(saver: BaseCheckpointSaver[Any], state: type[Any] = Talk) -> Conversation:
    """Build a graph that answers in two steps; if the input says so, a subgraph asks a person first."""
    permission = _permission()

    async def think(state: Talk) -> dict[str, Any]:
        return {"messages": [AIMessage(f"thinking about {state['messages'][-1].text}")]}

    async def answer(state: Talk) -> dict[str, Any]:
        output = await permission.ainvoke({"asks": state.get("asks", False)})
        return {"messages": [AIMessage(f"{output['permission']}: {len(state['messages'])} messages before")]}

    graph = StateGraph(state)
    graph.add_node("think", think, input_schema=state)
    graph.add_node("answer", answer, input_schema=state)
    graph.add_edge(START, "think")
    graph.add_edge("think", "answer")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


class _Permission(TypedDict):
    asks: bool
    permission: str


def _permission() -> Conversation:
    async def ask(state: _Permission) -> dict[str, Any]:
        return {"permission": interrupt({"question": "may I?"}) if state["asks"] else "yes"}

    graph = StateGraph(_Permission)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph.compile()


def texts(messages: list[BaseMessage]) -> list[str]:
    """Return the texts of the messages."""
    return [message.text for message in messages]
