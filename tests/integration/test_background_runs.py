"""Runs that no caller waits for: who takes them, in which order, and what of a run they keep."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage

from core.postgres import Pool
from core.settings import MessageSettings, QueueSettings
from service.migrations import migrate_rooms
from service.outbox.catalogue import ApprovalNeeded
from service.outbox.events import NewEvent
from service.runs.request import new_run_id
from service.runs.rows import Cancellation, NewRun
from service.runs.store import RunStore
from tests.support.audit import fetch_rows
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import CONTACT, running_service


@pytest.fixture
async def store(pool: Pool) -> RunStore:
    await migrate_rooms(pool)
    return RunStore(pool, replica=str(uuid4()), claim_seconds=30)


async def submit(
    store: RunStore, tenant: str, *, thread_id: str = "", priority: int = 0, after_seconds: float = 0
) -> str:
    run = NewRun(
        id=new_run_id(),
        thread_id=thread_id or str(uuid4()),
        tenant=tenant,
        user="u",
        graph="react",
        queue="runs",
        kwargs={},
        strategy="enqueue",
        priority=priority,
        after_seconds=after_seconds,
    )
    await store.add(run, may_start=False, may_wait=True, places=None, queue_length=1_000, held=False)
    return run.id


async def reserve(store: RunStore, limit: int, places: int | None = None) -> list[str]:
    return [row.id for row in await store.reserve(limit=limit, places=places)]


async def test_a_tenants_many_runs_do_not_hold_up_those_of_another(store: RunStore) -> None:
    flood = [await submit(store, "flood") for _ in range(20)]
    late = await submit(store, "other")
    assert set(await reserve(store, 2)) == {flood[0], late}
    assert set(await reserve(store, 3)) == set(flood[1:4])


async def test_a_tenants_more_urgent_run_is_first(store: RunStore) -> None:
    await submit(store, "one")
    urgent = await submit(store, "one", priority=5)
    assert await reserve(store, 1) == [urgent]


async def test_runs_of_a_thread_are_taken_in_their_order_and_by_one_replica(store: RunStore) -> None:
    first = await submit(store, "one", thread_id="shared")
    second = await submit(store, "one", thread_id="shared")
    other = RunStore(store.pool, replica=str(uuid4()), claim_seconds=30)
    taken = await asyncio.gather(*(reserve(each, 5) for each in (store, other)))
    assert sorted(taken) == [[], [first]]
    owner = store if taken[0] else other
    assert await owner.claim(first, places=None)
    assert await reserve(other, 5) == []
    await owner.end(first, 1, "success")
    assert await reserve(other, 5) == [second]


async def test_a_run_that_is_to_start_later_is_taken_then_and_holds_up_nobody(store: RunStore) -> None:
    late = await submit(store, "one", thread_id="shared", after_seconds=3_600)
    assert await store.claim(late, places=None) is None
    soon = await submit(store, "one", thread_id="shared")
    assert await reserve(store, 5) == [soon]
    assert await store.claim(soon, places=None)
    await store.end(soon, 1, "success")
    assert await reserve(store, 5) == []
    due = "UPDATE runs.runs SET created_at = now() WHERE id = %s RETURNING id"
    await fetch_rows(store.pool, due, late)
    assert await reserve(store, 5) == [late]
    assert await store.claim(late, places=None)


async def test_runs_that_end_together_keep_their_own_errors_events_and_metadata(store: RunStore) -> None:
    await fetch_rows(store.pool, "INSERT INTO outbox.brokers VALUES ('amqp', 'infinity') RETURNING name")
    ids = [await submit(store, "one", thread_id=f"thread-{number}") for number in range(4)]
    assert set(await reserve(store, 9)) == set(ids)
    assert all(await asyncio.gather(*(store.claim(run_id, places=None) for run_id in ids)))
    question = ApprovalNeeded(approval_id="a.thread-1", run_id=ids[1], graph="react", tool="")
    await asyncio.gather(
        store.end(ids[0], 1, "success", metadata={"topic": "exports"}),
        store.end(ids[1], 1, "interrupted", events=[NewEvent(data=question, thread_id="thread-1")]),
        # Whatever a provider wrote must not keep a run from ending.
        store.end(ids[2], 1, "error", {"error": "model_error", "message": "a\0b"}),
        store.end(ids[3], 1, "success"),
    )
    rows = [await store.get(run_id) for run_id in ids]
    assert [row and row.status for row in rows] == ["success", "interrupted", "error", "success"]
    assert rows[2] is not None
    assert rows[2].error == {"error": "model_error", "message": "a\0b"}
    threads = await fetch_rows(store.pool, "SELECT status, metadata FROM runs.threads ORDER BY id")
    assert [row["status"] for row in threads] == ["idle", "interrupted", "error", "idle"]
    assert [row["metadata"] for row in threads] == [{"topic": "exports"}, {}, {}, {}]
    events = await fetch_rows(store.pool, "SELECT thread_id, type FROM outbox.events ORDER BY thread_id")
    assert [(row["thread_id"], row["type"]) for row in events] == [
        ("thread-1", "approval.needed"),
        ("thread-2", "run.failed"),
    ]


async def test_a_tenant_at_its_limit_gets_no_more(store: RunStore) -> None:
    for _ in range(3):
        await submit(store, "one")
    [first, second] = await reserve(store, 2, places=2)
    assert all(await asyncio.gather(*(store.claim(run_id, places=2) for run_id in (first, second))))
    assert await reserve(store, 2, places=2) == []
    await store.end(first, 1, "success")
    assert len(await reserve(store, 2, places=2)) == 1


async def test_a_run_that_a_stopping_replica_did_not_begin_is_anyones(store: RunStore) -> None:
    run_id = await submit(store, "one")
    assert await reserve(store, 1) == [run_id]
    assert await reserve(store, 1) == []
    await store.return_reserved(run_id)
    assert await reserve(store, 1) == [run_id]


async def test_a_run_that_was_cancelled_is_taken_by_nobody(store: RunStore) -> None:
    run_id = await submit(store, "one", thread_id="cancelled")
    await store.cancel("one", "cancelled", Cancellation("interrupt", "cancelled"))
    assert await reserve(store, 1) == []
    row = await store.get(run_id)
    assert row is not None
    assert row.status == "interrupted"


async def test_a_run_that_another_replica_takes_over_keeps_its_deadline(database_url: str) -> None:
    def hang() -> dict[str, Any]:
        model = ScriptedChatModel(replies=[AIMessage("One two.")] * 20, before_token=asyncio.Event().wait)
        return {"models": scripted_models(model), "messages": limits}

    limits = MessageSettings(deadline_seconds=10, reserve_seconds=2)
    body = {"contact_id": CONTACT, "message": "Hi there!"}
    async with running_service(database_url, **hang()) as first:
        pool = first.service.pool
        asking = asyncio.create_task(first.http.post("/v1/messages", json=body))
        taken = (
            "UPDATE runs.runs SET status = 'pending', claimed_by = NULL WHERE attempt = 1 RETURNING id::text"
        )
        while not (rows := await fetch_rows(pool, taken)):  # noqa: ASYNC110 - a row
            await asyncio.sleep(0.01)
        async with running_service(database_url, **hang(), queue=QueueSettings()) as second:
            ended = await second.http.get(f"/v1/runs/{rows[0]['id']}/wait", timeout=30)
            assert ended.json()["status"] == "success"
            [handoff] = (await second.crm(f"/contacts/{CONTACT}/handoffs"))["handoffs"]
            assert handoff["reason"]
            asking.cancel()
