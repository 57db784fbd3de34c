"""Retention: what is deleted, and what must not be."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from checkpoints.retention import LOCK_ID, LOCK_SQL, RetentionPolicies, RetentionPolicy, SweepResult, sweep
from core.errors import MemoryUnavailable, StartupError
from core.postgres import Pool
from core.settings import QueueSettings, RetentionSettings, Settings
from nodes.shared.channels import MessagesChannel
from service.cli.database import build_retention_table
from service.erasure import Erasure
from service.retention import apply_retention
from tests.support.conversation import Conversation, StockTalk, conversation, replica
from tests.support.general_agent import PARROT, remembered, replying, service
from tests.support.general_agent import say as ask_coordinator
from tests.support.memory_faults import Line, line
from tests.support.profiles import examples
from tests.support.service import running_service
from tests.support.waiting import until

__all__ = ["line"]

PROJECT = Path(__file__).resolve().parents[2]
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


@pytest.fixture(autouse=True)
def short_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MessagesChannel, "MIN_UPDATES", 4)


def on(thread: str, graph: str = "talk") -> RunnableConfig:
    return {"configurable": {"thread_id": thread}, "metadata": {"graph": graph, "tenant": "default"}}


async def say(graph: Conversation, thread: str, *said: str, asks: bool = False, by: str = "talk") -> None:
    for text in said:
        told = {"messages": [HumanMessage(text)], "asks": asks}
        await graph.ainvoke(told, on(thread, by), durability="sync")


async def swept(
    pool: Pool,
    policy: str,
    *,
    per_graph: Mapping[str, str] | None = None,
    grace: timedelta = timedelta(0),
    dry_run: bool = False,
    batch_size: int = 100,
) -> SweepResult:
    return await sweep(
        pool,
        RetentionPolicies.from_settings(RetentionSettings(policy=policy, per_graph=dict(per_graph or {}))),
        erase=Erasure(pool=pool).erase_in,
        grace=grace,
        batch_size=batch_size,
        dry_run=dry_run,
    )


async def rows(pool: Pool, thread: str | None = None) -> dict[str, int]:
    async with pool.connection() as connection:
        counts = {}
        for name in TABLES:
            where = "WHERE thread_id = %s" if thread else ""
            query = f"SELECT count(*) AS n FROM {name} {where}".encode()
            row = await (await connection.execute(query, (thread,) if thread else None)).fetchone()
            assert row
            counts[name] = row["n"]
        return counts


async def aged(pool: Pool, thread: str, age: str) -> None:
    """Pretend that the thread's steps are that old."""
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE checkpoints SET checkpoint = jsonb_set(checkpoint, '{ts}', "
            "to_jsonb((now() - %s::interval)::text)) WHERE thread_id = %s",
            (age, thread),
        )


async def history(pool: Pool, thread: str) -> dict[str, tuple[Any, ...]]:
    """Return all that a reader sees of each checkpoint, by its id, through a replica with an empty cache."""
    graph = conversation(await replica(pool))
    states = [state async for state in graph.aget_state_history(on(thread))]
    return {state.config["configurable"]["checkpoint_id"]: _seen(state) for state in states}


def _seen(state: StateSnapshot) -> tuple[Any, ...]:
    tasks = [(task.name, task.result, task.interrupts) for task in state.tasks]
    return state.values, state.next, tasks, state.metadata, state.created_at


async def test_by_default_nothing_is_deleted(pool: Pool) -> None:
    await say(conversation(await replica(pool)), "a", "one", "two")
    before = await rows(pool)
    await aged(pool, "a", "10 years")
    await swept(pool, RetentionSettings().policy)
    assert await rows(pool) == before


@pytest.mark.parametrize("turns", [3, 9])
async def test_keep_latest_keeps_one_checkpoint_and_the_conversation_continues(
    pool: Pool, turns: int
) -> None:
    graph = conversation(await replica(pool))
    await say(graph, "a", *map(str, range(turns)))
    before, taken = await history(pool, "a"), await rows(pool)
    found = await swept(pool, "keep_latest")
    after = await history(pool, "a")
    assert 1 <= len(after) < len(before)
    assert max(after) == max(before)
    assert found.lines["talk"].checkpoints == len(before) - len(after)
    assert all(left < taken[name] for name, left in (await rows(pool)).items())
    await say(graph, "a", "and then?")
    assert len((await graph.aget_state(on("a"))).values["messages"]) == 3 * (turns + 1)


async def test_a_thread_without_delta_channels_keeps_exactly_what_the_policy_says(pool: Pool) -> None:
    await say(conversation(await replica(pool), StockTalk), "a", "one", "two", "three")
    before = await history(pool, "a")
    await swept(pool, "keep_last:3")
    after = await history(pool, "a")
    assert sorted(after) == sorted(before)[-3:]
    assert after == {id_: before[id_] for id_ in after}
    await swept(pool, "keep_latest")
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(*) AS n, count(DISTINCT channel) AS channels FROM checkpoint_blobs "
            "WHERE checkpoint_ns = ''"
        )
        row = await cursor.fetchone()
    assert row
    assert row["n"] == row["channels"]


steps = st.lists(
    st.sampled_from(["turn", "old layout", "fork", "rerun", "edit", "ask", "answer"]), min_size=1, max_size=9
)


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps, keep=st.integers(1, 6), pick=st.integers(0, 50))
async def test_retained_checkpoints_read_and_continue_as_before(
    pool: Pool, steps: list[str], keep: int, pick: int
) -> None:
    thread = f"{steps}{keep}{pick}"
    for step in steps:
        await _lived(conversation(await replica(pool)), pool, thread, step, pick)
    before = await history(pool, thread)
    await swept(pool, f"keep_last:{keep}")
    after = await history(pool, thread)
    assert set(sorted(before)[-keep:]) <= set(after)
    assert after == {id_: before[id_] for id_ in after}
    graph = conversation(await replica(pool))
    state = await graph.aget_state(on(thread))
    said = len(state.values["messages"])
    if state.interrupts:
        await graph.ainvoke(Command(resume="fine"), on(thread), durability="sync")
        assert len((await graph.aget_state(on(thread))).values["messages"]) == said + 1
    else:
        await say(graph, thread, "again")
        assert len((await graph.aget_state(on(thread))).values["messages"]) == said + 3


async def _lived(graph: Conversation, pool: Pool, thread: str, step: str, pick: int) -> None:
    states = [state async for state in graph.aget_state_history(on(thread))]
    waits = bool(states and states[0].interrupts)
    some = states[pick % len(states)] if states else None
    match step:
        case "old layout" if not waits:
            await say(conversation(await replica(pool), StockTalk), thread, "as before")
        case "ask" if not waits:
            await say(graph, thread, "may you?", asks=True)
        case "answer" if waits:
            await graph.ainvoke(Command(resume="do"), on(thread), durability="sync")
        case "fork" if some and some.values.get("messages"):
            edit = {"messages": [HumanMessage("else")], "asks": False}
            await graph.aupdate_state(some.config, edit, as_node="answer")
        case "rerun" if some and some.next and not some.interrupts:
            await graph.ainvoke(None, some.config, durability="sync")
        case "edit" if states and not waits:
            said = states[0].values["messages"]
            if said:
                update = {"messages": [HumanMessage("edited", id=said[0].id)]}
                await graph.aupdate_state(on(thread), update, as_node="answer")
        case _ if not waits:
            await say(graph, thread, "hello")


async def test_an_idle_thread_is_deleted_unless_it_waits_for_a_person(pool: Pool) -> None:
    graph = conversation(await replica(pool))
    await say(graph, "idle", "one", "two")
    await say(graph, "waiting", "one", asks=True)
    await say(graph, "fresh", "one")
    for thread in ("idle", "waiting"):
        await aged(pool, thread, "40 days")
    found = (await swept(pool, "delete_after:30d")).lines["talk"]
    assert (found.threads, found.erased, found.spared) == (3, 1, 1)
    assert set((await rows(pool, "idle")).values()) == {0}
    await graph.ainvoke(Command(resume="do"), on("waiting"), durability="sync")
    assert (await graph.aget_state(on("waiting"))).values["messages"][-1].text == "do: 2 messages before"
    assert len((await graph.aget_state(on("fresh"))).values["messages"]) == 3


async def test_each_graph_has_its_own_policy(pool: Pool) -> None:
    graph = conversation(await replica(pool))
    for by in ("brief", "kept"):
        await say(graph, f"a {by} thread", "one", "two", by=by)
    before = await history(pool, "a kept thread")
    found = await swept(pool, "keep_all", per_graph={"brief": "keep_latest"}, batch_size=1)
    assert found.lines["brief"].pruned == 1
    assert found.lines["kept"].pruned == 0
    assert await history(pool, "a kept thread") == before


async def test_a_recently_used_thread_is_left_alone(pool: Pool) -> None:
    await say(conversation(await replica(pool)), "a", "one", "two")
    before = await rows(pool)
    await swept(pool, "keep_latest", grace=timedelta(minutes=5))
    assert await rows(pool) == before


async def test_a_dry_run_predicts_the_sweep_and_changes_nothing(pool: Pool) -> None:
    graph = conversation(await replica(pool))
    await say(graph, "a", *map(str, range(6)))
    await say(graph, "b", "one")
    await aged(pool, "b", "2 days")
    before = await rows(pool)
    would = await swept(pool, "keep_latest,delete_after:1d", dry_run=True)
    assert await rows(pool) == before
    did = await swept(pool, "keep_latest,delete_after:1d")
    assert would == did
    assert did.lines["talk"].erased == did.lines["talk"].pruned == 1
    assert did.lines["talk"].bytes > 0


async def test_many_checkpoints_are_deleted_in_small_transactions(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoints.retention.MAX_CHECKPOINTS", 3)
    await say(conversation(await replica(pool)), "a", *map(str, range(5)))
    before = await history(pool, "a")
    found = await swept(pool, "keep_latest")
    after = await history(pool, "a")
    assert found.lines["talk"].checkpoints == len(before) - len(after) > 3
    assert after == {id_: before[id_] for id_ in after}


async def test_one_replica_sweeps_at_a_time(pool: Pool) -> None:
    await say(conversation(await replica(pool)), "a", "one", "two")
    before = await rows(pool)
    async with pool.connection() as other, other.transaction():
        await other.execute(LOCK_SQL, (LOCK_ID,))
        assert not (await swept(pool, "keep_latest")).complete
        assert await rows(pool) == before
    assert (await swept(pool, "keep_latest")).complete
    assert await rows(pool) != before


async def test_the_service_sweeps_in_the_background_even_after_a_failed_sweep(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.retention.sweep", failing_once := _FailingOnce())
    await say(conversation(await replica(pool)), "a", "one", "two")
    await aged(pool, "a", "1 day")
    often = RetentionSettings(policy="delete_after:1h", interval_seconds=0.01)
    async with running_service(database_url, retention=often, queue=QueueSettings()):
        await until(lambda: failing_once.swept)
    assert set((await rows(pool, "a")).values()) == {0}


@pytest.mark.parametrize("memory_is_up", [True, False])
async def test_retention_erases_a_thread_from_memory_too_or_not_at_all(
    database_url: str, pool: Pool, line: Line, memory_is_up: bool
) -> None:
    policy = RetentionSettings(policy="delete_after:1h", interval_seconds=3_600)
    async with service(database_url, replying("A green one."), retention=policy) as running:
        thread = (await ask_coordinator(running, PARROT))["session_id"]
        assert len(await remembered(running)) == 2
        await aged(pool, thread, "10 days")
        if memory_is_up:
            await apply_retention(running.service.settings, pool, running.service.erasure)
        else:
            line.state = "down"
            with pytest.raises(MemoryUnavailable):
                await apply_retention(running.service.settings, pool, running.service.erasure)
            line.state = "up"
        assert ((await rows(pool, thread))["checkpoints"] == 0) is memory_is_up
        assert len(await remembered(running)) == (0 if memory_is_up else 2)


class _FailingOnce:
    """A sweep that fails once."""

    def __init__(self) -> None:
        self.failed = False
        self.swept = False

    async def __call__(self, *given: Any, **named: Any) -> SweepResult:
        if not self.failed:
            self.failed = True
            raise LookupError("a table is not as it was")
        found = await sweep(*given, **named)
        self.swept = True
        return found


async def test_the_command_prints_what_would_be_deleted(database_url: str, pool: Pool) -> None:
    await say(conversation(await replica(pool)), "a", "one", "two")
    await aged(pool, "a", "1 day")
    before = await rows(pool)
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "RETENTION_PER_GRAPH": '{"talk": "keep_latest"}',
    }
    command = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service.cli.database",
        "retention",
        "--dry-run",
        cwd=PROJECT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await command.communicate()
    assert command.returncode == 0
    line = next(line for line in printed.decode().splitlines() if "keep_latest" in line)
    assert "talk" in line
    assert "would be removed" in printed.decode()
    assert await rows(pool) == before


def test_a_table_has_a_line_for_each_graph() -> None:
    assert build_retention_table(SweepResult(), dry_run=True).row_count == 0


@pytest.mark.parametrize(
    ("text", "keep", "after"),
    [
        ("keep_all", None, None),
        ("keep_latest", 1, None),
        ("keep_last:20", 20, None),
        ("delete_after:90d", None, timedelta(days=90)),
        ("keep_last:5,delete_after:12h", 5, timedelta(hours=12)),
    ],
)
def test_policies_are_parsed(text: str, keep: int | None, after: timedelta | None) -> None:
    assert RetentionPolicy.parse(RetentionSettings(policy=text).policy) == RetentionPolicy(text, keep, after)


@pytest.mark.parametrize("text", ["keep_last:0", "keep_some", "delete_after:soon", "keep_last", ""])
def test_an_invalid_policy_stops_the_start(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETENTION_PER_GRAPH", json.dumps({"react": text}))
    with pytest.raises(StartupError, match="RETENTION_PER_GRAPH"):
        Settings.load()
