"""The group-commit saver, as graphs and the stock saver see it."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, interrupt

from checkpoints.saver import GroupCommitSaver, open_saver
from checkpoints.saver import writer as writer_module
from core.metrics import NoCommitMeter
from core.postgres import Pool
from tests.support.savers import saver_on

Saver = BaseCheckpointSaver[str]
Durability = Literal["sync", "async", "exit"]
DURABILITIES: tuple[Durability, ...] = ("sync", "async", "exit")


class State(TypedDict):
    """A conversation that counts its steps."""

    messages: Annotated[list[AnyMessage], add_messages]
    steps: int
    note: str


def appended(state: list[str], writes: list[list[str]]) -> list[str]:
    """The reducer of a delta channel, which depends on the order."""
    return [*state, *(entry for write in writes for entry in write)]


class DeltaState(TypedDict):
    """A log of which each step stores only its additions."""

    log: Annotated[list[str], DeltaChannel(appended, snapshot_frequency=4)]


def thread(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **more}}


def stock_on(pool: Pool) -> AsyncPostgresSaver:
    return AsyncPostgresSaver(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))


async def speak(state: State) -> dict[str, Any]:
    steps = state["steps"] + 1
    return {"messages": [AIMessage(f"Step {steps}", id=f"a{steps}")], "steps": steps, "note": "olá"}


async def ask_person(state: State) -> dict[str, Any]:
    return {"messages": [HumanMessage(interrupt("Go on?"), id="answer")]}


def conversation(saver: Saver) -> CompiledStateGraph[State, None, State, State]:
    """Build a graph that speaks twice, asks a person, and speaks again."""
    graph = StateGraph(State)
    for name, step in (("one", speak), ("two", speak), ("ask", ask_person), ("three", speak)):
        graph.add_node(name, step)
    graph.add_edge(START, "one").add_edge("one", "two").add_edge("two", "ask").add_edge("ask", "three")
    return graph.compile(checkpointer=saver)


class CountedCommits(NoCommitMeter):
    """Counts the saver's commits."""

    def __init__(self) -> None:
        self.commits = 0

    def record_commit(self, *, writes: int, rows: int, seconds: float) -> None:
        self.commits += 1


HELLO: State = {"messages": [HumanMessage("Hello", id="h")], "steps": 0, "note": ""}


async def history(saver: Saver, config: RunnableConfig) -> list[CheckpointTuple]:
    return [found async for found in saver.alist(config)]


async def put(saver: Saver, thread_id: str, *, parent: str | None = None, **values: Any) -> RunnableConfig:
    """Save a checkpoint with these channels."""
    config = thread(thread_id, **({"checkpoint_id": parent} if parent else {}))
    checkpoint: Checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = values
    versions: dict[str, str | int | float] = dict.fromkeys(values, checkpoint["id"])
    checkpoint["channel_versions"] = versions
    return await saver.aput(config, checkpoint, {"source": "loop", "step": 1}, versions)


async def value(saver: Saver, thread_id: str, channel: str = "value") -> Any:
    found = await saver.aget_tuple(thread(thread_id))
    assert found is not None
    return found.checkpoint["channel_values"][channel]


# The contract


async def test_the_saver_passes_langgraphs_conformance_suite(pool: Pool) -> None:
    @checkpointer_test(name="GroupCommitSaver")
    async def ours() -> AsyncIterator[GroupCommitSaver]:
        yield await saver_on(pool)

    report = await validate(ours)
    assert {name: (result.passed, result.failures) for name, result in report.results.items()} == {
        name: (True, []) for name in report.results
    }
    assert len(report.results) == 8


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_the_stock_saver_and_ours_continue_each_others_threads(
    pool: Pool, durability: Durability
) -> None:
    ours, stock = await saver_on(pool), stock_on(pool)
    for begins, continues in ((stock, ours), (ours, stock)):
        config = thread(f"{type(begins).__name__}-{durability}")
        await conversation(begins).ainvoke(HELLO, config, durability=durability)
        await conversation(continues).ainvoke(Command(resume="Yes"), config, durability=durability)
        assert await history(ours, config) == await history(stock, config)
        state = await conversation(begins).aget_state(config)
        assert [message.content for message in state.values["messages"]] == [
            *("Hello", "Step 1", "Step 2", "Yes", "Step 3")
        ]
        assert state.next == ()


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_run_leaves_the_same_history_as_with_the_stock_saver(
    pool: Pool, durability: Durability
) -> None:
    ours, stock = await saver_on(pool), stock_on(pool)

    async def steps(saver: Saver, thread_id: str) -> list[Any]:
        graph = conversation(saver)
        await graph.ainvoke(HELLO, thread(thread_id), durability=durability)
        await graph.ainvoke(Command(resume="Yes"), thread(thread_id), durability=durability)
        found = [state async for state in graph.aget_state_history(thread(thread_id))]
        return [(state.values, state.next, [task.name for task in state.tasks]) for state in found]

    assert await steps(ours, "ours") == await steps(stock, "stock")


async def test_rows_are_identical_to_those_of_the_stock_saver(pool: Pool) -> None:
    ours, stock = await saver_on(pool), stock_on(pool)
    values = {
        "text": "olá",
        "list": [1, {"a": None}],
        "number": 2.5,
        "none": None,
        "flag": True,
        "big": 2**80,
    }
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = values
    versions: dict[str, str | int | float] = {name: f"{index:032}.5" for index, name in enumerate(values, 1)}
    checkpoint["channel_versions"] = versions
    for saver in (ours, stock):
        config = thread(type(saver).__name__, checkpoint_id="parent")
        stored = await saver.aput(config, checkpoint, {"source": "input", "step": -1}, versions)
        await saver.aput_writes(stored, [("text", "x"), ("list", [b"y"])], "task", "~path")
        await saver.aput_writes(stored, [("__interrupt__", ["why"])], "task", "~path")

    async def rows(table: str) -> list[list[Any]]:
        async with pool.connection() as connection:
            query = (
                f"SELECT to_jsonb({table}) - 'thread_id' AS row FROM {table} WHERE thread_id = %s ORDER BY 1"
            )
            return [
                await (await connection.execute(query.encode(), (type(saver).__name__,))).fetchall()
                for saver in (ours, stock)
            ]

    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        written_by_ours, written_by_stock = await rows(table)
        assert written_by_ours == written_by_stock
        assert written_by_ours


async def test_a_step_of_a_graph_is_one_commit(pool: Pool) -> None:
    async def extend(state: DeltaState) -> dict[str, Any]:
        return {"log": [f"after {len(state['log'])}"]}

    graph = StateGraph(DeltaState)
    graph.add_node("one", extend).add_node("two", extend).add_node("three", extend)
    graph.add_edge(START, "one").add_edge("one", "two").add_edge("two", "three")
    meter = CountedCommits()
    async with open_saver(pool, meter) as saver:
        compiled = graph.compile(checkpointer=saver)
        result = await compiled.ainvoke({"log": ["input"]}, thread("t"), durability="sync")
        assert result == {"log": ["input", "after 1", "after 2", "after 3"]}
        # What a run begins with is written before its first checkpoint.
        assert meter.commits <= len(await history(saver, thread("t"))) + 1


@pytest.mark.parametrize("kept", ["nul \0 in it", "half a pair \ud83d", math.inf, -math.inf])
async def test_a_value_that_json_cannot_represent_is_stored(pool: Pool, kept: str | float) -> None:
    ours = await saver_on(pool)
    await put(ours, "t", value=kept)
    expected = kept.encode("utf-8", "replace").decode() if kept == "half a pair \ud83d" else kept
    assert str(await value(stock_on(pool), "t")).rstrip("?\ufffd") == str(expected).rstrip("?\ufffd")
    assert await value(ours, "t") == await value(stock_on(pool), "t")


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_delta_channels_are_rebuilt_in_the_order_they_were_written(
    pool: Pool, durability: Durability
) -> None:
    def fan(_: DeltaState) -> list[Send]:
        return [Send("add", str(number)) for number in range(12)]

    async def add(number: str) -> dict[str, Any]:
        return {"log": [number]}

    async def step(state: DeltaState) -> dict[str, Any]:
        return {"log": [f"after {len(state['log'])}"]}

    def build(saver: Saver) -> CompiledStateGraph[Any, Any, Any, Any]:
        graph = StateGraph(DeltaState)
        graph.add_node("first", step)
        graph.add_node("add", add)  # type: ignore[arg-type]  # a Send's node takes what is sent
        graph.add_node("last", step)
        graph.add_edge(START, "first").add_conditional_edges("first", fan).add_edge("add", "last")
        return graph.compile(checkpointer=saver)

    ours, stock = await saver_on(pool), stock_on(pool)
    read: list[list[Any]] = []
    for saver, thread_id in ((InMemorySaver(), "m"), (ours, "o"), (stock, "s")):
        for _ in range(3):
            await build(saver).ainvoke({"log": ["turn"]}, thread(thread_id), durability=durability)
        states = [state async for state in build(saver).aget_state_history(thread(thread_id))]
        read.append([state.values.get("log") for state in states])
    assert read[0] == read[1] == read[2]
    assert len(read[0][0]) == 3 * 15
    for channel_history in (
        await ours.aget_delta_channel_history(config=thread("o"), channels=["log", "none"]),
        await ours.aget_delta_channel_history(config=thread("nobody"), channels=["log"]),
    ):
        assert "seed" not in channel_history.get("none", {})
    # Another saver's reading of the same rows.
    assert (await build(stock).aget_state(thread("o"))).values == (
        await build(ours).aget_state(thread("s"))
    ).values


async def test_a_copied_thread_continues_independently(pool: Pool) -> None:
    ours = await saver_on(pool)
    graph = conversation(ours)
    await graph.ainvoke(HELLO, thread("from"))
    await ours.acopy_thread("from", "to")
    await graph.ainvoke(Command(resume="Yes"), thread("to"))
    assert (await graph.aget_state(thread("from"))).next == ("ask",)
    assert (await graph.aget_state(thread("to"))).next == ()


async def test_deleting_a_run_keeps_the_values_that_later_runs_need(pool: Pool) -> None:
    ours = await saver_on(pool)
    first = thread("t")
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"kept": ["both"], "freed": ["old"]}
    checkpoint["channel_versions"] = {"kept": "1", "freed": "1"}
    stored = await ours.aput(first, checkpoint, {"run_id": "r1"}, {"kept": "1", "freed": "1"})
    second = empty_checkpoint()
    second["channel_values"] = {"kept": ["both"], "freed": ["new"]}
    second["channel_versions"] = {"kept": "1", "freed": "2"}
    await ours.aput(stored, second, {"run_id": "r2"}, {"freed": "2"})
    await ours.adelete_for_runs(["r1"])
    assert await value(ours, "t", "kept") == ["both"]
    assert await value(ours, "t", "freed") == ["new"]
    async with pool.connection() as connection:
        left = await (await connection.execute("SELECT channel, version FROM checkpoint_blobs")).fetchall()
    assert sorted((row["channel"], row["version"]) for row in left) == [("freed", "2"), ("kept", "1")]


# Groups


async def test_concurrent_writes_of_many_threads_share_few_transactions(pool: Pool) -> None:
    ours = await saver_on(pool)
    await put(ours, "warm", value=[0])

    async def transactions() -> int:
        async with pool.connection() as connection:
            row = await (
                await connection.execute("SELECT count(DISTINCT xmin::text) AS n FROM checkpoints")
            ).fetchone()
        assert row
        return int(row["n"])

    before = await transactions()
    await asyncio.gather(*(put(ours, f"t{number}", value=[number]) for number in range(200)))
    assert await transactions() - before < 10
    assert [await value(ours, f"t{number}") for number in (0, 99, 199)] == [[0], [99], [199]]


async def test_a_write_that_postgres_refuses_fails_only_its_own_caller(pool: Pool) -> None:
    ours = await saver_on(pool)
    # A thread's name cannot hold a NUL.
    names = [f"t{number}" if number % 10 else f"bad\0{number}" for number in range(100)]
    results = await asyncio.gather(*(put(ours, name, value=[name]) for name in names), return_exceptions=True)
    for name, result in zip(names, results, strict=True):
        if "\0" in name:
            assert isinstance(result, Exception)
            assert type(result).__module__.startswith("psycopg")
        else:
            assert await value(ours, name) == [name]


async def test_a_value_that_cannot_be_serialised_fails_only_its_own_caller(pool: Pool) -> None:
    ours = await saver_on(pool)
    good, bad = (
        asyncio.create_task(put(ours, name, value=[kept])) for name, kept in (("good", 1), ("bad", object()))
    )
    await good
    with pytest.raises(TypeError, match="not msgpack serializable"):
        await bad
    assert await value(ours, "good") == [1]


async def test_of_two_concurrent_writes_of_one_row_the_later_one_counts(pool: Pool) -> None:
    ours = await saver_on(pool)
    stored = await put(ours, "t", value=[1])
    await asyncio.gather(
        ours.aput_writes(stored, [("value", ["first"])], "task"),
        ours.aput_writes(stored, [("value", ["second"])], "task"),
        ours.aput_writes(stored, [("__error__", "early")], "task"),
        ours.aput_writes(stored, [("__error__", "late")], "task"),
    )
    found = await ours.aget_tuple(stored)
    assert found is not None
    # A task's result stays what it was first; its special channels are replaced.
    assert sorted(found.pending_writes or ()) == [("task", "__error__", "late"), ("task", "value", ["first"])]


async def test_a_large_value_does_not_let_later_writes_of_its_thread_overtake_it(pool: Pool) -> None:
    ours = await saver_on(pool)
    large = [{"text": "x" * 1000}] * 2000
    stored = await put(ours, "t", value=[1])
    order: list[str] = []

    async def write(name: str, content: Any) -> None:
        await ours.aput_writes(stored, [("__resume__", content)], "task")
        order.append(name)

    await asyncio.gather(write("large", large), write("small", "small"))
    found = await ours.aget_tuple(stored)
    assert found is not None
    assert found.pending_writes == [("task", "__resume__", "small")]
    await put(ours, "big", value=large)
    assert await value(ours, "big") == large


async def test_more_writes_than_the_queue_holds_wait_their_turn(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "QUEUE_WRITES", 4)
    monkeypatch.setattr(writer_module, "GROUP_WRITES", 3)
    ours = await saver_on(pool)
    waiting = [asyncio.create_task(put(ours, f"t{number}", value=[number])) for number in range(50)]
    await asyncio.sleep(0)
    waiting[20].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [number for number, result in enumerate(results) if isinstance(result, BaseException)] == [20]
    assert await value(ours, "t49") == [49]


async def test_a_slow_reader_of_a_listing_holds_no_connection(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoints.saver.queries.PAGE_SIZE", 3)
    ours = await saver_on(pool)
    parent = None
    for number in range(10):
        stored = await put(ours, "t", parent=parent, value=[number])
        parent = stored["configurable"]["checkpoint_id"]
    await ours.acopy_thread("t", "u")
    slow = ours.alist(None)
    seen = [await anext(slow)]
    async with _all_connections(pool):
        pass
    seen += [found async for found in slow]
    assert [found.checkpoint["channel_values"]["value"] for found in seen] == [
        [number] for number in reversed(range(10)) for _ in "tu"
    ]
    assert len({(found.config["configurable"]["thread_id"], found.checkpoint["id"]) for found in seen}) == 20
    assert len([found async for found in ours.alist(thread("t"), limit=7)]) == 7
    assert [found async for found in ours.alist(thread("t"), limit=0)] == []


async def test_writes_go_on_while_readers_hold_every_connection(pool: Pool) -> None:
    ours = await saver_on(pool)
    async with _all_connections(pool):
        await put(ours, "t", value=[1])
    assert await value(ours, "t") == [1]


async def test_a_deleted_thread_does_not_come_back_from_the_queue(pool: Pool) -> None:
    ours = await saver_on(pool)
    writing = [asyncio.create_task(put(ours, "t", value=[number])) for number in range(20)]
    await asyncio.sleep(0)
    for task in writing:
        task.cancel()
    await ours.adelete_thread("t")
    assert await ours.aget_tuple(thread("t")) is None
    async with pool.connection() as connection:
        assert await (await connection.execute("SELECT 1 FROM checkpoint_blobs")).fetchone() is None


@asynccontextmanager
async def _all_connections(pool: Pool) -> AsyncIterator[None]:
    held = [await pool.getconn() for _ in range(pool.max_size)]
    try:
        yield
    finally:
        for connection in held:
            await pool.putconn(connection)


async def test_large_values_that_cannot_be_serialised_do_not_block_other_writes(pool: Pool) -> None:
    ours = await saver_on(pool)
    bad = [{"text": "x" * 1000, "bad": object()}] * 2000
    refused = [asyncio.create_task(put(ours, f"bad{number}", value=bad)) for number in range(40)]
    await asyncio.sleep(0)
    await put(ours, "good", value=[1])
    for task in refused:
        with pytest.raises(TypeError, match="not msgpack serializable"):
            await task
    assert await value(ours, "good") == [1]
