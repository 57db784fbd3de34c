"""Measure how a long conversation grows: the bytes in the checkpoint tables, and the time per turn.

``make bench-growth`` runs it on an embedded Postgres of its own that is as durable as the service's. A turn
has the shape of a ReAct run on :class:`ReactState`: seven steps, and three messages of the sizes that the
offline model's runs have. No model is called, so that only the checkpointing is measured.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Annotated, Any, get_type_hints
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from rich.console import Console
from rich.table import Table
from typing_extensions import TypedDict

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from checkpoints.saver import open_saver
from core.logging import configure_logging
from core.postgres import Pool
from core.settings import DatabaseSettings, LogSettings
from nodes.react.state import ReactState, TraceEntry
from nodes.shared.channels import MessagesChannel, merge_messages

Graph = CompiledStateGraph[Any, Any, Any, Any]

# How many turns are compared: at the start, at the end, and with those of a new thread.
WINDOW = 50
COLD_READS = 5

TEXT = """
the export of contacts fails with an error when list holds more records than a request may take so we looked
at your plan and usage found incident closed last week please try batch filters date range tag segment import
invoice boleto campaign webhook retry limit support version component status operational
"""
WORDS = TEXT.split()

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
SIZE_SQL = "SELECT sum(pg_total_relation_size(name::regclass)) AS bytes FROM unnest(%s::text[]) AS name"
CLEAR_SQL = "TRUNCATE checkpoints, checkpoint_blobs, checkpoint_writes"


@asynccontextmanager
async def _saver(pool: Pool, *, ours: bool) -> AsyncIterator[AsyncPostgresSaver]:
    """Open the service's saver, or LangGraph's."""
    if not ours:
        yield AsyncPostgresSaver(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        return
    async with open_saver(pool) as saver:
        yield saver


def _graph(saver: AsyncPostgresSaver, messages: object) -> Graph:
    """Build seven steps on the state of ReAct, whose messages use the channel or reducer that is passed."""
    chance = random.Random(7)  # noqa: S311 - texts, not secrets

    def text(words: int) -> str:
        return " ".join(chance.choices(WORDS, k=words))

    def call() -> AIMessage:
        asked = {"name": "search_knowledge_base", "args": {"query": text(8)}, "id": str(uuid4())}
        return AIMessage(text(25), id=str(uuid4()), tool_calls=[{**asked, "type": "tool_call"}])

    def entry() -> TraceEntry:
        action = {"tool": "search_knowledge_base", "args": {"query": text(8)}}
        observed = {"success": True, "result": {"articles": [text(60)]}, "error": None}
        return TraceEntry(
            iteration=1,
            thought=text(25),
            action=action,  # type: ignore[typeddict-item]
            observation=observed,  # type: ignore[typeddict-item]
            reflection=None,
        )

    def begun() -> dict[str, Any]:
        message = HumanMessage(text(15), id=str(uuid4()))
        told = {"messages": [message], "turn": message.id, "max_iterations": 10, "reflection": "always"}
        cleared = {"tools": [], "instruction": "", "background": "", "iterations": 0, "trace": []}
        return {**told, **cleared, "unreadable": None, "success": False, "final_answer": ""}

    def answered() -> dict[str, Any]:
        said = text(100)
        return {"messages": [AIMessage(said, id=str(uuid4()))], "final_answer": said, "trace": [entry()]}

    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "prepare": begun,
        "think": lambda: {"messages": [call()], "iterations": 1},
        "act": lambda: {"trace": [entry()]},
        "reflect": lambda: {"trace": [entry()]},
        "think_again": lambda: {"iterations": 2},
        "answer": answered,
        "finish": lambda: {"success": True},
    }
    hints = get_type_hints(ReactState, include_extras=True)
    # The layouts differ only in this annotation, so the type is made from a value.
    hints["messages"] = Annotated[list[AnyMessage], messages]
    state = TypedDict("state", hints)  # type: ignore[misc]
    graph = StateGraph(state)
    before = START
    for name, step in steps.items():
        graph.add_node(name, _node(step))
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph.compile(checkpointer=saver)


def _node(step: Callable[[], dict[str, Any]]) -> Any:
    async def node(_: Any) -> dict[str, Any]:
        return step()

    return node


async def _turn(graph: Graph, thread: str) -> float:
    """Return the milliseconds that one turn takes."""
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    start = perf_counter()
    await graph.ainvoke({"task": "why?", "contact_id": str(uuid4())}, config, durability="sync")
    return (perf_counter() - start) * 1e3


async def _read(graph: Graph, thread: str) -> float:
    """Return the milliseconds that one read of the thread's state takes."""
    start = perf_counter()
    await graph.aget_state({"configurable": {"thread_id": thread}})
    return (perf_counter() - start) * 1e3


class _Row(TypedDict):
    layout: str
    megabytes: float
    first: float
    last: float
    long: float
    new: float
    cold: float
    warm: float


async def _measured(pool: Pool, layout: str, messages: object, turns: int, *, ours: bool) -> _Row:
    async with pool.connection() as connection:
        await connection.execute(CLEAR_SQL)
    async with AsyncExitStack() as stack:
        graphs = [
            _graph(await stack.enter_async_context(_saver(pool, ours=ours)), messages)
            for _ in range(1 + COLD_READS)
        ]
        return await _of(pool, layout, graphs, turns)


async def _of(pool: Pool, layout: str, graphs: Sequence[Graph], turns: int) -> _Row:
    """Measure the turns with the first graph, and cold reads with the others, which have read nothing yet."""
    graph, *fresh = graphs
    times = [await _turn(graph, "long") for _ in range(turns)]
    async with pool.connection() as connection:
        row = await (await connection.execute(SIZE_SQL, (list(TABLES),))).fetchone()
    # The threads alternate, so that other load on the machine affects both alike.
    pairs = [(await _turn(graph, "long"), await _turn(graph, "new")) for _ in range(WINDOW)]
    cold = [await _read(unread, "long") for unread in fresh]
    return _Row(
        layout=layout,
        megabytes=float(row["bytes"]) / 1e6 if row else 0,
        first=mean(times[:WINDOW]),
        last=mean(times[-WINDOW:]),
        long=median(pair[0] for pair in pairs),
        new=median(pair[1] for pair in pairs),
        cold=median(cold),
        warm=median([await _read(graph, "long") for _ in range(5)]),
    )


def _drawn(rows: Sequence[_Row], turns: int) -> Table:
    stock = rows[0]["megabytes"]
    table = Table(title=f"{turns} turns of 7 steps and 3 messages on one thread")
    table.add_column("layout")
    for name in ("MB", "of stock", "first 50", "last 50", "long", "new", "long/new", "read cold", "warm"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["layout"],
            f"{row['megabytes']:.1f}",
            f"1/{stock / row['megabytes']:.1f}",
            *(f"{row[name]:.1f}" for name in ("first", "last", "long", "new")),
            f"{row['long'] / row['new']:.2f}",
            f"{row['cold']:.1f}",
            f"{row['warm']:.1f}",
        )
    return table


async def main(turns: int) -> None:
    """Measure each layout and print a table; times in milliseconds."""
    configure_logging(LogSettings(level="error"), stream=sys.stderr)
    rows: list[_Row] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            embedded_postgres_server(Path(folder)) as url,
            open_pool(url, DatabaseSettings()) as pool,
        ):
            async with open_saver(pool):
                pass  # the tables
            for layout, messages, ours in (
                ("add_messages", add_messages, False),
                ("DeltaChannel(50)", DeltaChannel(merge_messages, snapshot_frequency=50), False),
                ("DeltaChannel(50), our saver", DeltaChannel(merge_messages, snapshot_frequency=50), True),
                ("DeltaChannel(200), our saver", DeltaChannel(merge_messages, snapshot_frequency=200), True),
                ("MessagesChannel, our saver", MessagesChannel(merge_messages), True),
            ):
                rows.append(await _measured(pool, layout, messages, turns, ours=ours))
                sys.stderr.write(f"{layout} done\n")
    console = Console()
    console.width = max(console.width, 130)
    console.print(_drawn(rows, turns))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=500)
    asyncio.run(main(parser.parse_args().turns))
