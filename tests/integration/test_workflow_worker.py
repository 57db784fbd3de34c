"""Several services on one database: a workflow executes on one, and continues on another if that dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from core.errors import DatabaseUnavailable, NotFound, NothingToResume, ThreadBusy
from core.postgres import Pool
from core.settings import RunSettings, WorkflowSettings
from core.tasks import Backoff, Supervisor, cancel_and_wait
from service.auth.principal import LOCAL, Identity
from service.erasure import Erasure
from service.observability.metrics import ServiceMetrics
from service.queue import Retry
from service.workflows.execution import MAX_INTERRUPTIONS
from service.workflows.graphs import WORKFLOW
from service.workflows.worker import ADVANCE_WORKFLOW
from service.workflows.workflows import schedule_workflows
from tests.support.queue import build_queue
from tests.support.runs import build_executor
from tests.support.savers import saver_on
from tests.support.waiting import until
from tests.support.workflows import FakeApi, ask, build_definition, build_engine, call
from workflows.store import Run

SETTINGS = WorkflowSettings(sweep_seconds=0.05, max_concurrent=2)
RUNS = RunSettings(claim_seconds=1, finish_seconds=0)
MANY, FEW = replace(LOCAL, tenant="many"), replace(LOCAL, tenant="few")


class WorkflowService:
    """The parts of a service that execute workflows."""

    def __init__(
        self,
        pool: Pool,
        saver: Any,
        api: FakeApi,
        *,
        workflows: WorkflowSettings = SETTINGS,
        runs: RunSettings = RUNS,
        shared: bool = False,
    ) -> None:
        self.metrics = ServiceMetrics()
        self.runs = build_executor(pool, runs, workflows, shared=shared)
        # Jobs that have not ended when it stops are cut off.
        self.queue = build_queue(pool, self.metrics, stalled_seconds=1, drain_seconds=0)
        self.workflows = schedule_workflows(
            workflows,
            pool,
            self.queue,
            runs=self.runs,
            engine=build_engine(api),
            checkpointer=saver,
            metrics=self.metrics,
        )
        self.task: asyncio.Task[None] | None = None

    def work(self) -> None:
        self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        tasks = Supervisor()
        async with tasks.supervise("claims", self.runs._claims.keep), self.queue.work(tasks):
            await asyncio.Event().wait()

    async def begin(self, *steps: Any, identity: Identity = LOCAL, priority: int = 0) -> str:
        return (await self.workflows.start(identity, build_definition(*steps), {}, priority=priority)).id

    async def settle(self, run_id: str) -> Run:
        run = await self.workflows.worker.wait_until_settled(LOCAL.tenant, run_id, seconds=30)
        assert run
        return run

    async def end(self, run_id: str) -> Run:
        """Return a run when it has ended."""
        while not (run := await self.settle(run_id)).is_final:
            pass
        return run

    async def die(self) -> None:
        """End like a killed process: its runs are cut off and say nothing of how they stand."""
        if self.task:
            await cancel_and_wait(self.task)
        for task in list(self.runs._tasks):
            await cancel_and_wait(task)

    async def close(self) -> None:
        await self.runs.drain()
        if self.task:
            await cancel_and_wait(self.task)


@pytest.fixture
async def build_service(pool: Pool) -> AsyncIterator[Any]:
    saver = await saver_on(pool)
    async with AsyncExitStack() as stack:

        def build(api: FakeApi, *, working: bool = True, **settings: Any) -> WorkflowService:
            service = WorkflowService(pool, saver, api, **settings)
            stack.push_async_callback(service.close)
            if working:
                service.work()
            return service

        yield build


def blocking(*step_ids: str) -> tuple[FakeApi, asyncio.Event]:
    """Return an API that answers some steps, or all, only when the event is set."""
    api, unblock = FakeApi(), asyncio.Event()
    api.before = lambda attempt: unblock.wait() if not step_ids or attempt.step_id in step_ids else None
    return api, unblock


async def execute(pool: Pool, statement: str, *values: Any) -> None:
    async with pool.connection() as connection:
        await connection.execute(statement.encode(), values)


async def test_a_run_whose_service_died_continues_on_another_without_repeating_steps(
    build_service: Any,
) -> None:
    first, _ = blocking("b")
    second = FakeApi()
    dying = build_service(first)
    run_id = await dying.begin(call("a"), call("b"), call("c"))
    await until(lambda: first.calls[f"{run_id}:b"])
    await dying.die()
    other = build_service(second)
    run = await other.end(run_id)
    assert (run.status, run.interruptions) == ("succeeded", 1)
    labels = {"graph": WORKFLOW, "outcome": "succeeded"}
    assert other.metrics.registry.get_sample_value("ventros_runs_total", labels) == 1
    assert first.calls == {f"{run_id}:a": 1, f"{run_id}:b": 1}
    assert second.calls == {f"{run_id}:b": 1, f"{run_id}:c": 1}


async def test_a_stopping_service_leaves_its_runs_to_others_at_once(build_service: Any) -> None:
    api, unblock = blocking("a")
    stopping = build_service(api)
    run_id = await stopping.begin(call("a"), call("b"))
    await until(lambda: api.calls[f"{run_id}:a"])
    stopping.runs.request_drain()
    unblock.set()
    # Its queue would cut the job off.
    await until(lambda: not stopping.runs.active)
    await stopping.close()
    assert api.calls == {f"{run_id}:a": 1}
    run = await build_service(api).end(run_id)
    assert (run.status, run.interruptions, api.calls[f"{run_id}:b"]) == ("succeeded", 0, 1)


async def test_a_service_that_lost_a_run_stops_and_leaves_the_word_to_the_other(
    pool: Pool, build_service: Any
) -> None:
    api, unblock = blocking("a")
    service = build_service(api)
    run_id = await service.begin(call("a"), call("b"))
    await until(lambda: api.calls[f"{run_id}:a"])
    await execute(
        pool,
        "UPDATE runs.runs SET attempt = attempt + 1, claimed_by = %s, claim_expires_at = 'infinity'",
        str(uuid4()),
    )
    await execute(pool, "UPDATE workflows.runs SET attempt = attempt + 1")
    unblock.set()
    await until(lambda: not service.runs.active)
    run = await service.workflows.get(LOCAL, run_id)
    assert (run.status, api.calls[f"{run_id}:b"]) == ("running", 0)


async def test_no_run_is_executed_by_two_services(build_service: Any) -> None:
    api = FakeApi()
    services = [build_service(api) for _ in range(3)]
    ids = [await services[number % 3].begin(call("a")) for number in range(30)]
    assert {(await services[0].end(run_id)).status for run_id in ids} == {"succeeded"}
    assert api.calls == {f"{run_id}:a": 1 for run_id in ids}


async def test_the_most_urgent_runs_of_a_tenant_are_first(build_service: Any) -> None:
    api = FakeApi()
    service = build_service(api, working=False, workflows=SETTINGS.model_copy(update={"max_concurrent": 1}))
    urgency = {await service.begin(call("a"), priority=number % 3): number % 3 for number in range(12)}
    service.work()
    for run_id in urgency:
        await service.end(run_id)
    order = [urgency[key.partition(":")[0]] for key in api.calls]
    # Those that waited for the slot already when an urgent one came keep their turn.
    assert order.index(2) < 3
    assert sum(order[:6]) > sum(order[6:])


async def test_a_run_that_kills_every_service_is_given_up(pool: Pool, build_service: Any) -> None:
    api = FakeApi()
    service = build_service(api, working=False)
    run_id = await service.begin(call("a"))
    await execute(pool, "UPDATE workflows.runs SET status = 'running', interruptions = %s", MAX_INTERRUPTIONS)
    service.work()
    run = await service.end(run_id)
    assert (run.status, api.calls) == ("failed", {})
    assert "processes died" in str(run.error)


async def test_workflows_do_not_take_slots_of_messages(build_service: Any) -> None:
    api, unblock = blocking()
    service = build_service(api, runs=RUNS.model_copy(update={"max_concurrent": 1, "queue_seconds": 0}))
    ids = [await service.begin(call("a")) for _ in range(3)]
    await until(lambda: sum(api.calls.values()) == 2)
    async with asyncio.timeout(60), service.runs.slots("runs").slot("x"):
        assert (await service.workflows.store.count(LOCAL.tenant)) == {"running": 2, "queued": 1}
    unblock.set()
    assert {(await service.end(run_id)).status for run_id in ids} == {"succeeded"}


async def test_a_run_killed_between_writes_and_checkpoint_continues(pool: Pool, build_service: Any) -> None:
    api = FakeApi()
    service = build_service(api)
    run_id = await service.begin(call("a"), call("b"), call("c"))
    run = await service.end(run_id)
    graph = service.workflows.graphs.compile(run.definition)
    thread: Any = {"configurable": {"thread_id": run_id}}
    history = [snapshot async for snapshot in graph.aget_state_history(thread)]
    before = next(snapshot for snapshot in history if [task.name for task in snapshot.tasks] == ["b"])
    await execute(
        pool,
        "DELETE FROM checkpoints WHERE thread_id = %s AND checkpoint_id > %s",
        run_id,
        before.config["configurable"]["checkpoint_id"],
    )
    await execute(pool, "UPDATE workflows.runs SET status = 'running', ended_at = NULL")
    assert (await service.end(run_id)).status == "succeeded"
    assert api.calls == {f"{run_id}:a": 1, f"{run_id}:b": 1, f"{run_id}:c": 2}


async def test_a_short_database_outage_fails_no_step(
    monkeypatch: pytest.MonkeyPatch, build_service: Any
) -> None:
    monkeypatch.setattr("service.workflows.worker._RETRY", Retry(backoff=Backoff(first=0, longest=0)))
    api = FakeApi()

    def fail_twice(_: Any) -> None:
        if sum(api.calls.values()) <= 2:
            raise DatabaseUnavailable("away")

    api.before = fail_twice
    service = build_service(api)
    run_id = await service.begin(call("a", on_error={"retry": 1, "then": "skip"}), call("b"))
    assert (await service.end(run_id)).status == "succeeded"
    assert api.calls == {f"{run_id}:a": 3, f"{run_id}:b": 1}


@pytest.mark.parametrize("killed", [True, False])
async def test_an_open_question_does_not_delay_other_branches_after_a_restart(
    build_service: Any, killed: bool
) -> None:
    first, unblock = blocking("b")
    second = FakeApi()
    stopping = build_service(first)
    branches = [
        {"type": "sequential", "id": "asks", "steps": [ask("may"), call("a")]},
        {"type": "sequential", "id": "works", "steps": [call("b"), call("c")]},
    ]
    run_id = await stopping.begin({"type": "parallel", "id": "both", "steps": branches})
    await until(lambda: first.calls[f"{run_id}:b"])
    run = await stopping.workflows.get(LOCAL, run_id)
    graph = stopping.workflows.graphs.compile(run.definition)
    thread: Any = {"configurable": {"thread_id": run_id}}
    while not (await graph.aget_state(thread)).interrupts:
        pass
    if killed:
        await stopping.die()
    else:
        stopping.runs.request_drain()
        unblock.set()
        await stopping.close()
    assert first.calls[f"{run_id}:c"] == 0
    run = await build_service(second).settle(run_id)
    assert (run.status, second.calls[f"{run_id}:c"], second.calls[f"{run_id}:a"]) == ("waiting", 1, 0)
    assert len((await graph.aget_state(thread)).interrupts) == 1


async def test_a_tenant_does_not_wait_for_the_queue_of_another(build_service: Any) -> None:
    api = FakeApi()
    service = build_service(api, working=False, workflows=SETTINGS.model_copy(update={"max_concurrent": 1}))
    many = [await service.begin(call("a"), priority=9, identity=MANY) for _ in range(20)]
    few = await service.begin(call("a"), identity=FEW)
    service.work()
    await until(lambda: len(api.calls) == len(many) + 1)
    assert list(api.calls).index(f"{few}:a") <= 1


async def test_long_runs_of_one_tenant_leave_room_for_another(build_service: Any) -> None:
    api, unblock = blocking("a")
    impatient = RUNS.model_copy(update={"queue_seconds": 0.05})
    service = build_service(api, shared=True, runs=impatient)
    # The first holds its tenant's share of the slots, and the next hold all places of jobs for a moment.
    for _ in range(8):
        await service.begin(call("a"), identity=MANY)
    await until(lambda: api.calls)
    few = await service.begin(call("b"), identity=FEW)
    await until(lambda: api.calls[f"{few}:b"])
    assert sum(api.calls.values()) == 2
    unblock.set()


async def test_more_runs_than_get_a_job_at_once_are_executed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, build_service: Any
) -> None:
    monkeypatch.setattr("service.workflows.workflows.MAX_QUEUED", 2)
    service = build_service(FakeApi(), working=False)
    ids = [await service.begin(call("a")) for _ in range(6)]
    service.work()
    assert {(await service.end(run_id)).status for run_id in ids} == {"succeeded"}


async def test_a_run_without_a_job_is_found(pool: Pool, build_service: Any) -> None:
    service = build_service(FakeApi(), working=False)
    run_id = await service.begin(call("a"))
    await execute(pool, "DELETE FROM procrastinate_jobs")
    service.work()
    assert (await service.end(run_id)).status == "succeeded"


async def test_a_run_is_cancelled_from_another_service(build_service: Any) -> None:
    api, unblock = blocking("a")
    service, other = build_service(api), build_service(FakeApi(), working=False)
    run_id = await service.begin(call("a"), call("b"))
    await until(lambda: api.calls[f"{run_id}:a"])
    assert (await other.workflows.cancel(LOCAL, run_id)).status == "running"
    claims = service.runs._claims._claims
    await until(lambda: any(claim.control.drain_requested for claim in claims.values()))
    unblock.set()
    assert ((await service.end(run_id)).status, api.calls[f"{run_id}:b"]) == ("cancelled", 0)


async def test_a_run_cancelled_while_its_service_is_dead_does_not_continue(build_service: Any) -> None:
    api, _ = blocking("a")
    dying = build_service(api)
    run_id = await dying.begin(call("a"), call("b"))
    await until(lambda: api.calls[f"{run_id}:a"])
    await dying.die()
    other = build_service(second := FakeApi(), working=False)
    assert (await other.workflows.cancel(LOCAL, run_id)).status == "running"
    other.work()
    assert ((await other.end(run_id)).status, second.calls) == ("cancelled", {})


async def test_a_run_that_is_cancelled_on_its_thread_is_a_cancelled_workflow(build_service: Any) -> None:
    api, unblock = blocking("a")
    service = build_service(api)
    run_id = await service.begin(call("a"), call("b"))
    await until(lambda: api.calls[f"{run_id}:a"])
    await service.runs.cancel_thread(LOCAL.tenant, run_id)
    unblock.set()
    assert ((await service.end(run_id)).status, api.calls[f"{run_id}:b"]) == ("cancelled", 0)


async def test_a_run_cancelled_before_it_started_starts_when_recovered(build_service: Any) -> None:
    api = FakeApi()
    service = build_service(api, working=False)
    run_id = await service.begin(call("a"))
    assert (await service.workflows.cancel(LOCAL, run_id)).status == "cancelled"
    await service.workflows.recover(LOCAL, run_id, "retry")
    service.work()
    assert ((await service.end(run_id)).status, api.calls) == ("succeeded", {f"{run_id}:a": 1})


async def test_a_recovery_waits_for_a_free_slot(build_service: Any) -> None:
    api = FakeApi({"a"})
    one = SETTINGS.model_copy(update={"max_concurrent": 1})
    service = build_service(api, workflows=one, runs=RUNS.model_copy(update={"queue_seconds": 0}))
    run_id = await service.begin(call("a"))
    assert (await service.end(run_id)).status == "failed"
    api.failing.clear()
    async with service.runs.slots("workflows").slot("x"):
        await service.workflows.recover(LOCAL, run_id, "retry")
        labels = {"task": ADVANCE_WORKFLOW, "outcome": "succeeded"}
        jobs = service.metrics.jobs.labels(**labels)
        before = jobs._value.get()
        await until(lambda: jobs._value.get() > before)
        assert (await service.workflows.get(LOCAL, run_id)).status == "queued"
    assert (await service.end(run_id)).status == "succeeded"


async def test_a_recovery_is_carried_out_once_although_its_job_is_cut_off(build_service: Any) -> None:
    api = FakeApi({"a"})
    service = build_service(api)
    run_id = await service.begin(call("a"), call("b"), call("c"))
    assert (await service.end(run_id)).status == "failed"
    never = asyncio.Event()
    api.before = lambda attempt: never.wait() if attempt.step_id == "c" else None
    await service.workflows.recover(LOCAL, run_id, "skip_failed_step")
    await until(lambda: api.calls[f"{run_id}:c"])
    await service.die()
    other = build_service(second := FakeApi())
    assert ((await other.end(run_id)).status, second.calls) == ("succeeded", {f"{run_id}:c": 1})


async def test_a_signal_during_a_recovery_is_not_lost(build_service: Any) -> None:
    service = build_service(FakeApi())
    run_id = await service.begin({"id": "paid", "type": "wait", "signal": "paid"})
    assert (await service.settle(run_id)).status == "waiting"
    async with service.runs.hold_idle_thread(LOCAL, run_id):
        await service.workflows.signal(LOCAL, run_id, "paid", None)
        await until(lambda: service.runs.queued)
    assert (await service.end(run_id)).status == "succeeded"


async def test_signals_that_are_sent_at_once_are_all_taken(build_service: Any) -> None:
    services = [build_service(FakeApi()) for _ in range(2)]
    steps = [{"id": f"s{number}", "type": "wait", "signal": f"s{number}"} for number in range(8)]
    run_id = await services[0].begin({"type": "parallel", "id": "all", "steps": steps})
    assert (await services[0].settle(run_id)).status == "waiting"
    await asyncio.gather(
        *(services[number % 2].workflows.signal(LOCAL, run_id, f"s{number}", None) for number in range(8))
    )
    assert (await services[0].end(run_id)).status == "succeeded"


async def test_a_decision_on_one_service_continues_a_run_of_another(build_service: Any) -> None:
    api = FakeApi()
    service, other = build_service(api), build_service(api, working=False)
    run_id = await service.begin(ask("may"), call("a"))
    assert (await service.settle(run_id)).status == "waiting"
    view = await service.workflows.view(LOCAL, run_id)
    [question] = view.interrupts
    view = await other.workflows.decide(LOCAL, run_id, question.id, {"decision": "approve"})
    assert (view.run.status, api.calls) == ("succeeded", {f"{run_id}:a": 1})


async def test_people_who_decide_at_once_decide_once(build_service: Any) -> None:
    api = FakeApi()
    services = [build_service(api) for _ in range(2)]
    run_id = await services[0].begin(ask("may"), call("a"))
    assert (await services[0].settle(run_id)).status == "waiting"
    [question] = (await services[0].workflows.view(LOCAL, run_id)).interrupts
    decisions = await asyncio.gather(
        *(
            services[number % 2].workflows.decide(LOCAL, run_id, question.id, {"decision": "approve"})
            for number in range(4)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(decision, NothingToResume) for decision in decisions) == 3
    assert ((await services[0].end(run_id)).status, api.calls) == ("succeeded", {f"{run_id}:a": 1})


async def test_a_decision_waits_only_so_long_for_steps_beside_the_question(
    monkeypatch: pytest.MonkeyPatch, build_service: Any
) -> None:
    monkeypatch.setattr("service.workflows.execution.ANSWER_SECONDS", 0.05)
    api, unblock = blocking("b")
    service = build_service(api)
    run_id = await service.begin({"type": "parallel", "id": "both", "steps": [ask("may"), call("b")]})
    await until(lambda: api.calls[f"{run_id}:b"])
    while not (interrupts := (await service.workflows.view(LOCAL, run_id)).interrupts):
        pass
    with pytest.raises(ThreadBusy):
        await service.workflows.decide(LOCAL, run_id, interrupts[0].id, {"decision": "approve"})
    unblock.set()
    assert (await service.settle(run_id)).status == "waiting"
    view = await service.workflows.decide(LOCAL, run_id, interrupts[0].id, {"decision": "approve"})
    assert view.run.status == "succeeded"


async def test_a_run_that_has_not_begun_can_be_erased(pool: Pool, build_service: Any) -> None:
    api = FakeApi()
    service = build_service(api, working=False)
    erased, kept = await service.begin(call("a")), await service.begin(call("a"))
    await Erasure(pool=pool).erase(erased, tenant=LOCAL.tenant)
    service.work()
    assert (await service.end(kept)).status == "succeeded"
    assert api.calls == {f"{kept}:a": 1}
    with pytest.raises(NotFound):
        await service.workflows.get(LOCAL, erased)


async def test_no_later_run_overtakes_an_equally_urgent_one_of_its_tenant(build_service: Any) -> None:
    service = build_service(FakeApi(), working=False)
    first = [await service.begin(call("a")) for _ in range(5)]
    await service.workflows.cancel(LOCAL, first[0])
    await service.workflows.cancel(LOCAL, first[1])
    last = await service.begin(call("a"))
    turns = await service.workflows.store.list_due(limit=10)
    assert sorted(turns, key=lambda run_id: turns[run_id]) == [*first[2:], last]
    assert len(set(turns.values())) == len(turns)
