"""Several services on one database: each run belongs to one service, and continues on another if it dies."""

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
from service.observability.metrics import ServiceMetrics
from service.workflows.graphs import WORKFLOW, WorkflowGraphs
from service.workflows.worker import MAX_EXPIRED_LEASES, WorkflowWorker
from tests.support.runs import build_executor
from tests.support.savers import saver_on
from tests.support.waiting import until
from tests.support.workflows import FakeApi, ask, build_definition, build_engine, call
from workflows.schema import Definition
from workflows.store import Run, WorkflowStore, erase_run

SETTINGS = WorkflowSettings(lease_seconds=1, sweep_seconds=0.02, max_concurrent=2)


class WorkflowService:
    """The parts of a service that execute workflows."""

    def __init__(self, pool: Pool, saver: Any, api: FakeApi, name: str) -> None:
        self.store = WorkflowStore(pool, service=name, lease_seconds=SETTINGS.lease_seconds)
        self.runs = build_executor(pool)

        def compile_definition(workflow: Any) -> Any:
            graph = compile_workflow(workflow, build_engine(api), saver)
            graph.name = WORKFLOW
            return graph

        self.metrics = ServiceMetrics()
        self.worker = WorkflowWorker(
            self.store, WorkflowGraphs(compile_definition), self.runs, self.metrics, SETTINGS
        )
        self.task = asyncio.create_task(self.worker.run())

    async def begin(self, run_id: str, *steps: Any, priority: int = 0, tenant: str = LOCAL.tenant) -> Run:
        workflow = build_definition(*steps).model_dump(mode="json", exclude_unset=True)
        given: dict[str, Any] = {"items": []}
        run, _ = await self.store.add(
            id=run_id,
            tenant=tenant,
            user_id=LOCAL.user,
            client_id="",
            name="test",
            definition=workflow,
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
        """End like a killed process: nothing is released."""
        self.task.cancel()
        for task in [self.task, *self.worker._tasks.values(), *self.runs._tasks]:
            await cancel_and_wait(task)

    async def close(self) -> None:
        await self.runs.drain()
        await self.worker.aclose()
        await cancel_and_wait(self.task)


@pytest.fixture
async def start_service(pool: Pool) -> AsyncIterator[Any]:
    saver = await saver_on(pool)
    async with AsyncExitStack() as stack:

        def make(api: FakeApi, name: str = "one") -> WorkflowService:
            service = WorkflowService(pool, saver, api, name)
            stack.push_async_callback(service.close)
            return service

        yield make


async def test_a_run_whose_service_died_continues_on_another_without_repeating_steps(
    pool: Pool, start_service: Any
) -> None:
    never = asyncio.Event()
    first, second = FakeApi(), FakeApi()
    first.before = lambda attempt: never.wait() if attempt.step_id == "b" else None
    first_service, other = start_service(first, "dying"), start_service(second, "other")
    other.task.cancel()
    await first_service.begin("w", call("a"), call("b"), call("c"))
    await until(lambda: first.calls["w:b"])
    await first_service.die()
    other.task = asyncio.create_task(other.worker.run())
    run = await other.wait_until_settled("w")
    assert (run.status, run.expired_leases) == ("succeeded", 1)
    labels = {"graph": WORKFLOW, "outcome": "succeeded"}
    assert other.metrics.registry.get_sample_value("ventros_runs_total", labels) == 1
    assert (first.calls, second.calls) == ({"w:a": 1, "w:b": 1}, {"w:b": 1, "w:c": 1})


async def test_a_stopping_service_releases_its_runs_at_once(pool: Pool, start_service: Any) -> None:
    unblock, api = asyncio.Event(), FakeApi()
    api.before = lambda attempt: unblock.wait() if attempt.step_id == "a" else None
    stopping = start_service(api, "stopping")
    await stopping.begin("w", call("a"), call("b"))
    await until(lambda: api.calls["w:a"])
    stopping.runs.request_drain()
    unblock.set()
    await stopping.close()
    assert api.calls == {"w:a": 1}
    run = await start_service(api, "next").wait_until_settled("w")
    assert (run.status, run.expired_leases, api.calls["w:b"]) == ("succeeded", 0, 1)


async def test_a_run_stops_at_its_next_step_when_its_lease_is_lost(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, start_service: Any
) -> None:
    unblock, api = asyncio.Event(), FakeApi()
    api.before = lambda attempt: unblock.wait() if attempt.step_id == "a" else None
    service = start_service(api, "slow")
    stop, stopped = service.runs.stop, []

    def record_stop(run_id: str) -> None:
        stopped.append(run_id)
        stop(run_id)

    monkeypatch.setattr(service.runs, "stop", record_stop)
    await service.begin("w", call("a"), call("b"))
    await until(lambda: api.calls["w:a"])
    async with pool.connection() as connection:
        await connection.execute("UPDATE workflows.runs SET leased_by = 'other', leased_until = 'infinity'")
    await until(lambda: stopped)
    unblock.set()
    await until(lambda: not service.worker.active)
    run = await service.store.get(LOCAL.tenant, "w")
    assert (run.status, api.calls["w:b"]) == ("running", 0)


async def test_no_run_is_claimed_by_two_services(pool: Pool, start_service: Any) -> None:
    service = start_service(FakeApi())
    service.task.cancel()
    for number in range(30):
        await service.begin(f"w{number}", call("a"), priority=number % 3)
    stores = [WorkflowStore(pool, service=f"s{number}", lease_seconds=30) for number in range(6)]
    claims = [await asyncio.gather(*(store.claim(limit=3) for store in stores)) for _ in range(3)]
    claimed = [run.id for claim in claims for runs in claim for run in runs]
    assert len(claimed) == len(set(claimed)) == 30
    assert {run.priority for run in claims[0][0]} == {2}


async def test_a_run_that_kills_every_service_is_not_claimed_again(pool: Pool, start_service: Any) -> None:
    api = FakeApi()
    service = start_service(api)
    service.task.cancel()
    await service.begin("w", call("a"))
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE workflows.runs SET status = 'running', leased_by = 'dead', expired_leases = %s",
            (MAX_EXPIRED_LEASES,),
        )
    service.task = asyncio.create_task(service.worker.run())
    run = await service.wait_until_settled("w")
    assert (run.status, api.calls) == ("failed", {})
    assert "services died" in str(run.error)


async def test_a_run_in_progress_is_not_erased(pool: Pool, start_service: Any) -> None:
    service = start_service(FakeApi())
    service.task.cancel()
    await service.begin("w", call("a"))
    [claimed] = await service.store.claim(limit=1)
    async with pool.connection() as connection, connection.transaction():
        with pytest.raises(ThreadBusy):
            await erase_run(connection, claimed.id)
    await service.store.release(claimed.id, pause=0)
    async with pool.connection() as connection:
        await erase_run(connection, claimed.id)
    assert await service.store.get(LOCAL.tenant, "w") is None


async def test_workflows_do_not_take_slots_of_messages(pool: Pool, start_service: Any) -> None:
    unblock, api = asyncio.Event(), FakeApi()
    api.before = lambda _: unblock.wait()
    service = start_service(api)
    service.runs = service.worker._runs = build_executor(
        pool, RunSettings(max_concurrent=1, queue_seconds=0), WorkflowSettings(max_concurrent=2)
    )
    for number in range(3):
        await service.begin(f"w{number}", call("a"))
    await until(lambda: sum(api.calls.values()) == 2)
    async with asyncio.timeout(60), service.runs.slots("runs").slot("x"):
        assert (await service.store.count(LOCAL.tenant)) == {"running": 2, "queued": 1}
    unblock.set()
    for number in range(3):
        assert (await service.wait_until_settled(f"w{number}")).status == "succeeded"


async def test_a_run_killed_between_writes_and_checkpoint_continues(pool: Pool, start_service: Any) -> None:
    api = FakeApi()
    service = start_service(api)
    run = await service.begin("w", call("a"), call("b"), call("c"))
    await service.wait_until_settled("w")
    graph = service.worker._graphs.compile(run.definition)
    thread: Any = {"configurable": {"thread_id": "w"}}
    history = [snapshot async for snapshot in graph.aget_state_history(thread)]
    before = next(snapshot for snapshot in history if [task.name for task in snapshot.tasks] == ["b"])
    async with pool.connection() as connection:
        await connection.execute(
            "DELETE FROM checkpoints WHERE thread_id = 'w' AND checkpoint_id > %s",
            (before.config["configurable"]["checkpoint_id"],),
        )
        await connection.execute("UPDATE workflows.runs SET status = 'running', ended_at = NULL")
    service.worker.wake()
    assert (await service.wait_until_settled("w")).status == "succeeded"
    assert api.calls == {"w:a": 1, "w:b": 1, "w:c": 2}


async def test_a_short_database_outage_fails_no_step(
    monkeypatch: pytest.MonkeyPatch, start_service: Any
) -> None:
    monkeypatch.setattr("service.workflows.worker.PAUSE_SECONDS", 0.01)
    api = FakeApi()

    def fail_twice(_: Any) -> None:
        if api.calls["w:a"] <= 2:
            raise DatabaseUnavailable("away")

    api.before = fail_twice
    service = start_service(api)
    await service.begin("w", call("a", on_error={"retry": 1, "then": "skip"}), call("b"))
    assert (await service.wait_until_settled("w")).status == "succeeded"
    assert api.calls == {"w:a": 3, "w:b": 1}


@pytest.mark.parametrize("killed", [True, False])
async def test_an_open_question_does_not_delay_other_branches_after_a_restart(
    start_service: Any, killed: bool
) -> None:
    unblock, first, second = asyncio.Event(), FakeApi(), FakeApi()
    first.before = lambda attempt: unblock.wait() if attempt.step_id == "b" else None
    stopping = start_service(first, "stopping")
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
        unblock.set()
        await stopping.close()
    assert first.calls["w:c"] == 0
    run = await start_service(second, "next").wait_until_settled("w")
    assert (run.status, second.calls["w:c"], second.calls["w:a"]) == ("waiting", 1, 0)
    assert len((await graph.aget_state(thread)).interrupts) == 1


async def test_a_tenant_does_not_wait_for_the_queue_of_another(start_service: Any) -> None:
    service = start_service(FakeApi())
    service.task.cancel()
    for number in range(20):
        await service.begin(f"many{number}", call("a"), priority=9, tenant="many")
    await service.begin("few", call("a"), tenant="few")
    assert {run.id for run in await service.store.claim(limit=2)} == {"many0", "few"}


async def test_a_run_cancelled_before_it_started_starts_when_recovered(start_service: Any) -> None:
    api = FakeApi()
    service = start_service(api)
    service.task.cancel()
    await service.begin("w", call("a"))
    await service.store.cancel(LOCAL.tenant, "w")

    async def prepare_retry(run: Run, graph: Any) -> Recovery:
        workflow = Definition.model_validate(run.definition)
        return await retry(graph, {"configurable": {"thread_id": run.id}}, workflow)

    await service.worker.recover(LOCAL, "w", prepare_retry)
    assert ((await service.wait_until_settled("w")).status, api.calls) == ("succeeded", {"w:a": 1})


async def test_a_recovery_waits_for_a_free_slot(monkeypatch: pytest.MonkeyPatch, start_service: Any) -> None:
    monkeypatch.setattr("service.workflows.worker.PAUSE_SECONDS", 0.01)
    api = FakeApi({"a"})
    service = start_service(api)
    await service.begin("w", call("a"))
    assert (await service.wait_until_settled("w")).status == "failed"
    api.failing.clear()
    run_to_end = service.runs.run_to_end
    rejected: list[Any] = []

    async def reject_first(request: Any) -> Any:
        if not rejected:
            rejected.append(request)
            raise TooManyRuns("full")
        return await run_to_end(request)

    monkeypatch.setattr(service.runs, "run_to_end", reject_first)

    async def prepare_retry(run: Run, graph: Any) -> Recovery:
        workflow = Definition.model_validate(run.definition)
        return await retry(graph, {"configurable": {"thread_id": run.id}}, workflow)

    await service.worker.recover(LOCAL, "w", prepare_retry)
    assert ((await service.wait_until_settled("w")).status, len(rejected)) == ("succeeded", 1)


async def test_a_signal_during_a_rejected_recovery_is_not_lost(start_service: Any) -> None:
    service = start_service(FakeApi())
    await service.begin("w", ask("may"))
    await service.wait_until_settled("w")
    await until(lambda: not service.worker.active)
    service.task.cancel()

    async def reject(run: Run, graph: Any) -> Recovery:
        raise NothingToResume("not so")

    await service.store.add_signal(LOCAL.tenant, "w", "paid", None)
    with pytest.raises(NothingToResume):
        await service.worker.recover(LOCAL, "w", reject)
    assert [run.id for run in await service.store.claim(limit=1)] == ["w"]
