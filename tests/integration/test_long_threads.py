"""Long conversations: the storage they take, and that no message is lost or altered."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command

from checkpoints.saver import GroupCommitSaver
from core.postgres import Pool
from nodes.shared.channels import MessagesChannel
from tests.support.conversation import Conversation, StockTalk, conversation, replica, texts

THREAD: RunnableConfig = {"configurable": {"thread_id": "long"}}

# What messages take in the tables, compressed as they are kept.
MESSAGES_SQL = """
SELECT (SELECT coalesce(sum(length(blob)), 0) FROM checkpoint_blobs WHERE channel = 'messages')
     + (SELECT coalesce(sum(length(blob)), 0) FROM checkpoint_writes WHERE channel = 'messages') AS bytes
"""


async def say(graph: Conversation, *said: str, config: RunnableConfig = THREAD) -> None:
    for text in said:
        await graph.ainvoke({"messages": [HumanMessage(text)]}, config, durability="sync")


async def heard(graph: Conversation, config: RunnableConfig = THREAD) -> list[str]:
    return texts((await graph.aget_state(config)).values["messages"])


async def taken(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute(MESSAGES_SQL)).fetchone()
    assert row
    return int(row["bytes"])


@pytest.fixture(params=["postgres", "memory"])
async def saver(request: pytest.FixtureRequest, pool: Pool) -> BaseCheckpointSaver[Any]:
    if request.param == "memory":
        return InMemorySaver()
    return await replica(pool)


@pytest.fixture
def short_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take snapshots so often that a short conversation has some."""
    monkeypatch.setattr(MessagesChannel, "MIN_UPDATES", 4)


async def test_storage_grows_linearly_with_a_conversation(pool: Pool, short_snapshots: None) -> None:
    graph = conversation(await replica(pool))
    sizes = []
    for _ in range(2):
        await say(graph, *(["how do I export a thousand contacts?"] * 60))
        sizes.append(await taken(pool))
    assert sizes[1] < 2.6 * sizes[0]


async def test_a_thread_without_delta_channels_is_read_and_continued(
    saver: BaseCheckpointSaver[Any], short_snapshots: None
) -> None:
    await say(conversation(saver, StockTalk), "one", "two")
    graph = conversation(saver)
    before = await heard(graph)
    assert [text for text in before if text in {"one", "two"}] == ["one", "two"]
    await say(graph, "three", "four", "five")
    after = await heard(graph)
    assert after[: len(before)] == before
    assert len(after) == 15
    oldest = [state async for state in graph.aget_state_history(THREAD)][-3]
    assert texts(oldest.values["messages"]) == ["one", "thinking about one"][: len(oldest.values["messages"])]


async def test_every_state_of_the_history_is_unchanged(
    saver: BaseCheckpointSaver[Any], short_snapshots: None
) -> None:
    graph = conversation(saver)
    lived: list[list[str]] = []
    for number in range(6):
        told = {"messages": [HumanMessage(f"{number}")]}
        lived += [
            texts(values["messages"])
            async for values in graph.astream(told, THREAD, stream_mode="values", durability="sync")
        ]
    history = [texts(state.values.get("messages", [])) async for state in graph.aget_state_history(THREAD)]
    kept = [state for state in reversed(history) if state]
    assert [state for state in lived if state in kept] == lived
    assert kept[-1] == lived[-1]
    assert len(kept[-1]) == 18


async def test_a_fork_leaves_the_thread_unchanged(
    saver: BaseCheckpointSaver[Any], short_snapshots: None
) -> None:
    graph = conversation(saver)
    await say(graph, "one", "two", "three")
    whole = await graph.aget_state(THREAD)
    states = [state async for state in graph.aget_state_history(THREAD)]
    earlier = next(state for state in states if not state.next and len(state.values["messages"]) == 6)

    forked = await graph.aupdate_state(earlier.config, {"messages": [HumanMessage("else")]}, as_node="answer")
    await say(graph, "more", config=THREAD)
    assert await heard(graph) == [
        *texts(earlier.values["messages"]),
        "else",
        "more",
        "thinking about more",
        "yes: 9 messages before",
    ]
    assert texts((await graph.aget_state(whole.config)).values["messages"]) == texts(whole.values["messages"])
    assert texts((await graph.aget_state({**forked})).values["messages"])[-1] == "else"


async def test_running_from_an_earlier_step_drops_later_messages(
    saver: BaseCheckpointSaver[Any], short_snapshots: None
) -> None:
    graph = conversation(saver)
    await say(graph, "one", "two")
    states = [state async for state in graph.aget_state_history(THREAD)]
    before_answer = next(state for state in states if state.next == ("answer",))
    await graph.ainvoke(None, before_answer.config, durability="sync")
    assert await heard(graph) == [
        "one",
        "thinking about one",
        "yes: 2 messages before",
        "two",
        "thinking about two",
        "yes: 5 messages before",
    ]


async def test_messages_are_replaced_and_removed_by_id(saver: BaseCheckpointSaver[Any]) -> None:
    graph = conversation(saver)
    await say(graph, "one")
    first, second, third = (await graph.aget_state(THREAD)).values["messages"]
    await graph.aupdate_state(
        THREAD,
        {"messages": [AIMessage("edited", id=second.id), RemoveMessage(third.id)]},
        as_node="answer",
    )
    assert await heard(graph) == [first.text, "edited"]
    await say(graph, "two")
    assert (await heard(graph))[:3] == [first.text, "edited", "two"]
    await graph.aupdate_state(
        THREAD, {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), HumanMessage("anew")]}, as_node="answer"
    )
    assert await heard(graph) == ["anew"]


async def test_messages_as_studio_sends_them_become_messages(saver: BaseCheckpointSaver[Any]) -> None:
    graph = conversation(saver)
    await graph.ainvoke({"messages": [{"role": "user", "content": "hello"}]}, THREAD, durability="sync")
    ids = [message.id for message in (await graph.aget_state(THREAD)).values["messages"]]
    assert await heard(graph) == ["hello", "thinking about hello", "yes: 2 messages before"]
    assert ids == [message.id for message in (await graph.aget_state(THREAD)).values["messages"]]
    assert all(ids)


async def test_a_thread_that_waits_for_a_person_resumes_where_it_stopped(
    saver: BaseCheckpointSaver[Any],
) -> None:
    graph = conversation(saver)
    await say(graph, "one")
    await graph.ainvoke({"messages": [HumanMessage("two")], "asks": True}, THREAD, durability="sync")
    await graph.ainvoke(Command(resume="please"), THREAD, durability="sync")
    assert (await heard(graph))[-3:] == ["two", "thinking about two", "please: 5 messages before"]


async def test_replicas_read_each_others_writes_into_their_caches(pool: Pool, short_snapshots: None) -> None:
    savers = await replica(pool), await replica(pool)
    graphs = [conversation(saver) for saver in savers]
    for number in range(8):
        await say(graphs[number % 2], f"{number}")
    plain = conversation(AsyncPostgresSaver(pool))
    assert await heard(graphs[0]) == await heard(graphs[1]) == await heard(plain)
    (await graphs[0].aget_state(THREAD)).values["messages"].clear()
    assert len(await heard(graphs[0])) == 24


async def test_a_turn_reads_only_new_writes(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = await replica(pool)
    graph = conversation(saver)
    await say(graph, *(["hello"] * 4))
    decoded = 0
    loads = saver.serde.loads_typed

    def counted(data: tuple[str, bytes]) -> Any:
        nonlocal decoded
        decoded += 1
        return loads(data)

    monkeypatch.setattr(saver.serde, "loads_typed", counted)
    await say(graph, "hello")
    in_short = decoded
    decoded = 0
    await say(graph, *(["hello"] * 10))
    decoded = 0
    await say(graph, "hello")
    assert decoded == in_short


async def test_an_erased_thread_leaves_the_cache(pool: Pool) -> None:
    saver = await replica(pool)
    graph = conversation(saver)
    await say(graph, "secret", "more")
    assert remembered(saver)
    await saver.adelete_thread("long")
    assert not remembered(saver)
    await say(graph, "anew")
    assert await heard(graph) == ["anew", "thinking about anew", "yes: 2 messages before"]


async def test_the_history_cache_is_bounded(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoints.saver.delta_history.MAX_WRITES", 20)
    saver = await replica(pool)
    graph = conversation(saver)
    for number in range(10):
        await say(graph, "one", "two", "three", config={"configurable": {"thread_id": f"{number}"}})
    assert 0 < len(remembered(saver)) < 10


def remembered(saver: GroupCommitSaver) -> set[str]:
    return {key.thread for key in saver._cache}
