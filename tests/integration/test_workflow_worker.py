"""Several services on one database: each run is one's alone, and goes on when that one is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from core.errors import DatabaseUnavailable, NothingToResume, ThreadBusy, TooManyRuns
from core.postgres import Pool
from core.settings import RunSettings, WorkflowSettings
from core.tasks import cancel_and_wait
from graphs.workflow import compile_workflow
from nodes.workflow.recovery import Recovery, retry
from service.auth.principal import LOCAL
from service.workflows.graphs import WORKFLOW, WorkflowGraphs
from service.workflows.worker import MAX_EXPIRED_LEASES, WorkflowWorker
from tests.support.runs import build_executor
from tests.support.savers import saver_on
from tests.support.waiting import until
from tests.support.workflows import Outside, ask, call, definition, engine
from workflows.schema import Definition
from workflows.store import Run, WorkflowStore, erase_run

SETTINGS = WorkflowSettings(lease_seconds=1, sweep_seconds=0.02, max_concurrent=2)


class Service:
    """What one service has for workflows."""

    def __init__(self, pool: Pool, saver: Any, outside: Outside, name: str) -> None:
        self.store = WorkflowStore(pool, service=name, lease_seconds=SETTINGS.lease_seconds)
        self.runs = build_executor(pool)

        def compiled(made: Any) -> Any:
            graph = compile_workflow(made, engine(outside), saver)
            graph.name = WORKFLOW
            return graph

        self.worker = WorkflowWorker(self.store, WorkflowGraphs(compiled), self.runs, SETTINGS)
        self.task = asyncio.create_task(self.worker.run())

    async def begin(self, run_id: str, *steps: Any, priority: int = 0, tenant: str = LOCAL.tenant) -> Run:
        made = definition(*steps).model_dump(mode="json", exclude_unset=True)
        given: dict[str, Any] = {"items": []}
        run, _ = await self.store.add(
            id=run_id,
            tenant=tenant,
            user_id=LOCAL.user,
            client_id="",
            name="test",
            definition=made,
            input=given,
            priority=priority,
        )
        self.worker.wake()
        return run

    async def wait_until_settled(self, run_id: str) -> Run:
        run = await self.worker.wait_until_settled(LOCAL.tenant, run_id, seconds=30)
        assert run
        return run

    async def die(self) -> None:
        """As a killed process does: nothing is released."""
        self.task.cancel()
        for task in [self.task, *self.worker._tasks.values(), *self.runs._tasks]:
            await cancel_and_wait(task)

    async def close(self) -> None:
        await self.runs.drain()
        await self.worker.aclose()
        await cancel_and_wait(self.task)


@pytest.fixture
async def service(pool: Pool) -> AsyncIterator[Any]:
    saver = await saver_on(pool)
    async with AsyncExitStack() as stack:

        def make(outside: Outside, name: str = "one") -> Service:
            made = Service(pool, saver, outside, name)
            stack.push_async_callback(made.close)
            return made

        yield make


async def test_a_run_whose_service_died_continues_on_another_without_repeating_steps(
    pool: Pool, service: Any
) -> None:
    stuck = asyncio.Event()
    first, second = Outside(), Outside()
    first.before = lambda one: stuck.wait() if one.step_id == "b" else None
    dying, other = service(first, "dying"), service(second, "other")
    other.task.cancel()
    await dying.begin("w", call("a"), call("b"), call("c"))
    await until(lambda: first.calls["w:b"])
    await dying.die()
    other.task = asyncio.create_task(other.worker.run())
    run = await other.wait_until_settled("w")
    assert (run.status, run.expired_leases) == ("succeeded", 1)
    assert (first.calls, second.calls) == ({"w:a": 1, "w:b": 1}, {"w:b": 1, "w:c": 1})


async def test_a_stopping_service_releases_its_runs_at_once(pool: Pool, service: Any) -> None:
    going, outside = asyncio.Event(), Outside()
    outside.before = lambda one: going.wait() if one.step_id == "a" else None
    stopping = service(outside, "stopping")
    await stopping.begin("w", call("a"), call("b"))
    await until(lambda: outside.calls["w:a"])
    stopping.runs.request_drain()
    going.set()
    await stopping.close()
    assert outside.calls == {"w:a": 1}
    run = await service(outside, "next").wait_until_settled("w")
    assert (run.status, run.expired_leases, outside.calls["w:b"]) == ("succeeded", 0, 1)


async def test_a_run_stops_at_its_next_step_when_its_lease_is_lost(pool: Pool, service: Any) -> None:
    going, outside = asyncio.Event(), Outside()
    outside.before = lambda one: going.wait() if one.step_id == "a" else None
    slow = service(outside, "slow")
    await slow.begin("w", call("a"), call("b"))
    await until(lambda: outside.calls["w:a"])
    async with pool.connection() as connection:
        await connection.execute("UPDATE workflows.runs SET leased_by = 'other', leased_until = 'infinity'")
    control = slow.runs._threads["w"].current
    await until(lambda: control and control.drain_requested)
    going.set()
    await until(lambda: not slow.worker.active)
    run = await slow.store.get(LOCAL.tenant, "w")
    assert (run.status, outside.calls["w:b"]) == ("running", 0)


async def test_no_run_is_claimed_by_two_services(pool: Pool, service: Any) -> None:
    one = service(Outside())
    one.task.cancel()
    for number in range(30):
        await one.begin(f"w{number}", call("a"), priority=number % 3)
    stores = [WorkflowStore(pool, service=f"s{number}", lease_seconds=30) for number in range(6)]
    claims = [await asyncio.gather(*(store.claim(limit=3) for store in stores)) for _ in range(3)]
    claimed = [run.id for claim in claims for runs in claim for run in runs]
    assert len(claimed) == len(set(claimed)) == 30
    assert {run.priority for run in claims[0][0]} == {2}


async def test_a_run_that_kills_every_service_is_not_claimed_again(pool: Pool, service: Any) -> None:
    outside = Outside()
    one = service(outside)
    one.task.cancel()
    await one.begin("w", call("a"))
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE workflows.runs SET status = 'running', leased_by = 'dead', expired_leases = %s",
            (MAX_EXPIRED_LEASES,),
        )
    one.task = asyncio.create_task(one.worker.run())
    run = await one.wait_until_settled("w")
    assert (run.status, outside.calls) == ("failed", {})
    assert "services died" in str(run.error)


async def test_a_run_in_progress_is_not_erased(pool: Pool, service: Any) -> None:
    one = service(Outside())
    one.task.cancel()
    await one.begin("w", call("a"))
    [claimed] = await one.store.claim(limit=1)
    async with pool.connection() as connection, connection.transaction():
        with pytest.raises(ThreadBusy):
            await erase_run(connection, claimed.id)
    await one.store.release(claimed.id, pause=0)
    async with pool.connection() as connection:
        await erase_run(connection, claimed.id)
    assert await one.store.get(LOCAL.tenant, "w") is None


async def test_workflows_do_not_take_slots_of_messages(pool: Pool, service: Any) -> None:
    going, outside = asyncio.Event(), Outside()
    outside.before = lambda _: going.wait()
    one = service(outside)
    one.runs = one.worker._runs = build_executor(
        pool, RunSettings(max_concurrent=1, queue_seconds=0), WorkflowSettings(max_concurrent=2)
    )
    for number in range(3):
        await one.begin(f"w{number}", call("a"))
    await until(lambda: sum(outside.calls.values()) == 2)
    async with asyncio.timeout(5), one.runs._lanes["runs"].slots.slot("x"):
        assert (await one.store.count(LOCAL.tenant)) == {"running": 2, "queued": 1}
    going.set()
    for number in range(3):
        assert (await one.wait_until_settled(f"w{number}")).status == "succeeded"


async def test_a_run_killed_between_writes_and_checkpoint_continues(pool: Pool, service: Any) -> None:
    outside = Outside()
    one = service(outside)
    run = await one.begin("w", call("a"), call("b"), call("c"))
    await one.wait_until_settled("w")
    graph = one.worker._graphs.compile(run.definition)
    thread: Any = {"configurable": {"thread_id": "w"}}
    history = [snapshot async for snapshot in graph.aget_state_history(thread)]
    before = next(snapshot for snapshot in history if [task.name for task in snapshot.tasks] == ["b"])
    async with pool.connection() as connection:
        await connection.execute(
            "DELETE FROM checkpoints WHERE thread_id = 'w' AND checkpoint_id > %s",
            (before.config["configurable"]["checkpoint_id"],),
        )
        await connection.execute("UPDATE workflows.runs SET status = 'running', ended_at = NULL")
    one.worker.wake()
    assert (await one.wait_until_settled("w")).status == "succeeded"
    assert outside.calls == {"w:a": 1, "w:b": 1, "w:c": 2}


async def test_a_short_database_outage_fails_no_step(monkeypatch: pytest.MonkeyPatch, service: Any) -> None:
    monkeypatch.setattr("service.workflows.worker.PAUSE_SECONDS", 0.01)
    outside = Outside()

    def away(_: Any) -> None:
        if outside.calls["w:a"] <= 2:
            raise DatabaseUnavailable("away")

    outside.before = away
    one = service(outside)
    await one.begin("w", call("a", on_error={"retry": 1, "then": "skip"}), call("b"))
    assert (await one.wait_until_settled("w")).status == "succeeded"
    assert outside.calls == {"w:a": 3, "w:b": 1}


@pytest.mark.parametrize("killed", [True, False])
async def test_an_open_question_does_not_delay_other_branches_after_a_restart(
    service: Any, killed: bool
) -> None:
    going, first, second = asyncio.Event(), Outside(), Outside()
    first.before = lambda one: going.wait() if one.step_id == "b" else None
    stopping = service(first, "stopping")
    branches = [
        {"type": "sequential", "id": "asks", "steps": [ask("may"), call("a")]},
        {"type": "sequential", "id": "works", "steps": [call("b"), call("c")]},
    ]
    run = await stopping.begin("w", {"type": "parallel", "id": "both", "steps": branches})
    await until(lambda: first.calls["w:b"])
    graph = stopping.worker._graphs.compile(run.definition)
    thread: Any = {"configurable": {"thread_id": "w"}}
    while not (await graph.aget_state(thread)).interrupts:
        pass
    if killed:
        await stopping.die()
    else:
        stopping.runs.request_drain()
        going.set()
        await stopping.close()
    assert first.calls["w:c"] == 0
    run = await service(second, "next").wait_until_settled("w")
    assert (run.status, second.calls["w:c"], second.calls["w:a"]) == ("waiting", 1, 0)
    assert len((await graph.aget_state(thread)).interrupts) == 1


async def test_a_tenant_does_not_wait_for_the_queue_of_another(service: Any) -> None:
    one = service(Outside())
    one.task.cancel()
    for number in range(20):
        await one.begin(f"many{number}", call("a"), priority=9, tenant="many")
    await one.begin("few", call("a"), tenant="few")
    assert {run.id for run in await one.store.claim(limit=2)} == {"many0", "few"}


async def test_a_run_cancelled_before_it_started_starts_when_recovered(service: Any) -> None:
    outside = Outside()
    one = service(outside)
    one.task.cancel()
    await one.begin("w", call("a"))
    await one.store.cancel(LOCAL.tenant, "w")

    async def again(run: Run, graph: Any) -> Recovery:
        made = Definition.model_validate(run.definition)
        return await retry(graph, {"configurable": {"thread_id": run.id}}, made)

    await one.worker.recover(LOCAL, "w", again)
    assert ((await one.wait_until_settled("w")).status, outside.calls) == ("succeeded", {"w:a": 1})


async def test_a_recovery_waits_for_a_free_slot(monkeypatch: pytest.MonkeyPatch, service: Any) -> None:
    monkeypatch.setattr("service.workflows.worker.PAUSE_SECONDS", 0.01)
    outside = Outside({"a"})
    one = service(outside)
    await one.begin("w", call("a"))
    assert (await one.wait_until_settled("w")).status == "failed"
    outside.failing.clear()
    stream = one.runs.stream
    refused: list[Any] = []

    async def full_at_first(request: Any) -> AsyncIterator[Any]:
        if not refused:
            refused.append(request)
            raise TooManyRuns("full")
        async for part in stream(request):
            yield part

    monkeypatch.setattr(one.runs, "stream", full_at_first)

    async def again(run: Run, graph: Any) -> Recovery:
        made = Definition.model_validate(run.definition)
        return await retry(graph, {"configurable": {"thread_id": run.id}}, made)

    await one.worker.recover(LOCAL, "w", again)
    assert ((await one.wait_until_settled("w")).status, len(refused)) == ("succeeded", 1)


async def test_a_signal_during_a_rejected_recovery_is_not_lost(service: Any) -> None:
    one = service(Outside())
    await one.begin("w", ask("may"))
    await one.wait_until_settled("w")
    await until(lambda: not one.worker.active)
    one.task.cancel()

    async def refused(run: Run, graph: Any) -> Recovery:
        raise NothingToResume("not so")

    await one.store.add_signal(LOCAL.tenant, "w", "paid", None)
    with pytest.raises(NothingToResume):
        await one.worker.recover(LOCAL, "w", refused)
    assert [run.id for run in await one.store.claim(limit=1)] == ["w"]
