"""Two replicas on one database: what a caller notices who reaches now one, now the other."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage

from core.context import Actor, act_as
from core.errors import ClaimLost
from core.settings import QueueSettings, RunSettings
from graphs.registry import REGISTRY
from nodes.react.state import Reflection
from service.audit.idempotency import RecordedEffects
from service.auth.principal import LOCAL
from service.runs.inputs import build_graph_input
from service.runs.request import build_run_request, new_run_id
from service.runs.rows import NewRun
from service.runs.serialization import dump_request
from service.runs.store import RunStore
from tests.support.audit import fetch_rows
from tests.support.general_agent import replying, service
from tests.support.queue import until_true
from tests.support.replicas import Gate, Replicas, two_replicas
from tests.support.scripted import calling
from tests.support.service import CONTACT

TOLD = Reflection(success=True, reasoning="Done.", task_complete=True, final_answer="Told.")
MESSAGE = ("send_solution_to_customer", {"solution": "Use the batch export API."})


@pytest.fixture
async def replicas(database_url: str) -> AsyncIterator[Replicas]:
    async with two_replicas(database_url) as opened:
        yield opened


async def test_a_thread_runs_on_one_replica_at_a_time(replicas: Replicas) -> None:
    for model in replicas.models:
        model.replies += [AIMessage("Use the batch API.")] * 10
    running = most = 0

    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    for model in replicas.models:
        model.before_token = count
    answers = await asyncio.gather(
        *(replicas.ask(up, "shared") for up in [replicas.first, replicas.second] * 5)
    )
    assert [answer.status_code for answer in answers] == [200] * 10
    assert most == 1
    rows = await fetch_rows(
        replicas.first.service.pool,
        "SELECT started_at, ended_at, status FROM runs.runs WHERE thread_id = %s ORDER BY started_at",
        "shared",
    )
    assert [row["status"] for row in rows] == ["success"] * 10
    assert all(one["ended_at"] <= next_["started_at"] for one, next_ in pairwise(rows))


async def test_a_second_replica_refuses_where_the_caller_does_not_wait(replicas: Replicas) -> None:
    replicas.models[0].replies.append(AIMessage("Use the batch API."))
    gate = Gate(replicas.models[0])
    first = asyncio.create_task(replicas.ask(replicas.first, "taken"))
    await gate.begun.wait()
    refused = await replicas.ask(replicas.second, "taken", multitask_strategy="reject")
    assert (refused.status_code, refused.json()["error"]) == (409, "thread_busy")
    gate.open()
    assert (await first).status_code == 200


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_run_on_one_replica_replaces_that_on_another(replicas: Replicas, strategy: str) -> None:
    replicas.models[0].replies += [calling("I tell them.", MESSAGE), TOLD]
    replicas.models[1].replies.append(AIMessage("Use the new export."))
    gate = Gate(replicas.models[0])
    first = asyncio.create_task(replicas.ask(replicas.first, "replaced"))
    await gate.begun.wait()
    second = asyncio.create_task(replicas.ask(replicas.second, "replaced", multitask_strategy=strategy))
    await _until_cancelled(replicas, "replaced")
    gate.open()
    answered, replaced = await second, await first
    assert (replaced.status_code, replaced.json()["error"]) == (409, "run_replaced")
    assert answered.json()["output"]["final_answer"] == "Use the new export."
    rows = await fetch_rows(
        replicas.first.service.pool, "SELECT status FROM runs.runs WHERE thread_id = %s", "replaced"
    )
    kept = {"interrupt": ["interrupted", "success"], "rollback": ["success"]}
    assert sorted(row["status"] for row in rows) == kept[strategy]
    state = await replicas.first.service.graphs["react"].aget_state(
        {"configurable": {"thread_id": "replaced"}}
    )
    tasks = [message.text for message in state.values["messages"] if message.type == "human"]
    assert len(tasks) == {"interrupt": 2, "rollback": 1}[strategy]


async def test_one_key_at_both_replicas_at_once_is_one_run_and_one_effect(replicas: Replicas) -> None:
    for model in replicas.models:
        model.replies += [calling("I tell them.", MESSAGE), TOLD] * 5
    for number in range(5):
        both = [replicas.ask(up, "", key=f"same-{number}") for up in (replicas.first, replicas.second)]
        answers = [answer.json()["output"] for answer in await asyncio.gather(*both)]
        assert answers[0] == answers[1]
        assert answers[0]["final_answer"] == "Told."
    assert replicas.prompts == 10
    effects = await fetch_rows(replicas.first.service.pool, "SELECT attempts FROM audit.effects")
    assert [effect["attempts"] for effect in effects] == [1] * 5


async def test_a_thread_that_another_replica_uses_is_not_erased(replicas: Replicas) -> None:
    replicas.models[0].replies.append(AIMessage("Use the batch API."))
    gate = Gate(replicas.models[0])
    first = asyncio.create_task(replicas.ask(replicas.first, "in-use"))
    await gate.begun.wait()
    refused = await replicas.second.http.delete("/v1/threads/in-use")
    assert (refused.status_code, refused.json()["error"]) == (409, "thread_busy")
    gate.open()
    assert (await first).status_code == 200
    assert (await replicas.second.http.delete("/v1/threads/in-use")).status_code == 204


async def test_a_replica_that_lost_its_claim_writes_neither_checkpoints_nor_effects(
    replicas: Replicas,
) -> None:
    replicas.models[0].replies += [calling("I tell them.", MESSAGE), TOLD]
    gate = Gate(replicas.models[0])
    first = asyncio.create_task(replicas.ask(replicas.first, "fenced"))
    await gate.begun.wait()
    pool = replicas.first.service.pool
    [row] = await fetch_rows(
        pool,
        "UPDATE runs.runs SET attempt = 2, claimed_by = gen_random_uuid() WHERE thread_id = %s RETURNING id",
        "fenced",
    )
    before = await fetch_rows(pool, "SELECT checkpoint_id FROM checkpoints WHERE thread_id = %s", "fenced")
    gate.open()
    lost = await first
    assert (lost.status_code, lost.json()["error"]) == (503, "claim_lost")
    after = await fetch_rows(pool, "SELECT checkpoint_id FROM checkpoints WHERE thread_id = %s", "fenced")
    assert after == before

    async def make() -> dict[str, Any]:
        raise AssertionError("the effect was made")

    act_as(Actor(thread_id="fenced", run_id=str(row["id"]), attempt=1))
    with pytest.raises(ClaimLost):
        await RecordedEffects(pool).run_once("key", "send", {}, make)


async def _until_cancelled(replicas: Replicas, thread_id: str) -> None:
    sql = "SELECT cancel_action FROM runs.runs WHERE thread_id = %s AND cancel_action IS NOT NULL"
    while not await fetch_rows(replicas.first.service.pool, sql, thread_id):  # noqa: ASYNC110 - another's row
        await asyncio.sleep(0.001)


async def test_a_tenants_places_and_queue_hold_over_all_replicas(database_url: str) -> None:
    limits = RunSettings(max_concurrent_per_tenant=1, queue_length=1)
    async with two_replicas(database_url, runs=limits) as replicas:
        for model in replicas.models:
            model.replies += [AIMessage("Use the batch API.")] * 2
        gate = Gate(replicas.models[0])
        first = asyncio.create_task(replicas.ask(replicas.first, "one"))
        await gate.begun.wait()
        second = asyncio.create_task(replicas.ask(replicas.second, "two"))
        waiting = "SELECT FROM runs.runs WHERE thread_id = %s AND status = 'pending'"
        while not await fetch_rows(replicas.first.service.pool, waiting, "two"):  # noqa: ASYNC110 - a row
            await asyncio.sleep(0.001)
        refused = await replicas.ask(replicas.second, "three")
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_runs")
        assert not second.done()
        gate.open()
        assert [(await each).status_code for each in (first, second)] == [200, 200]


async def test_a_run_that_begins_while_claims_are_renewed_is_not_taken_for_lost(replicas: Replicas) -> None:
    replicas.models[0].replies.append(AIMessage("Use the batch API."))
    gate, store = Gate(replicas.models[0]), replicas.first.service.run_store
    add, extend = store.add, store.extend
    looked, renewed = asyncio.Event(), asyncio.Event()

    async def add_once_looked(*args: Any, **options: Any) -> Any:
        await looked.wait()
        return await add(*args, **options)

    async def extend_slowly(ids: Any) -> Any:
        if looked.is_set():
            renewed.set()
        found = await extend(ids)
        looked.set()
        await gate.begun.wait()
        return found

    store.add, store.extend = add_once_looked, extend_slowly  # type: ignore[method-assign]
    asking = asyncio.create_task(replicas.ask(replicas.first, "begins"))
    await renewed.wait()
    gate.open()
    assert (await asking).status_code == 200


async def test_runs_of_a_thread_whose_replica_died_end_though_nobody_waits_for_the_later_one(
    database_url: str,
) -> None:
    async with service(database_url, replying("One.", "Two."), queue=QueueSettings()) as running:
        up = running.service
        spec = REGISTRY["coordinator"]
        dead = RunStore(up.pool, replica=str(uuid4()), claim_seconds=0.001)
        ids = [new_run_id() for _ in range(2)]
        for run_id in ids:
            given = {"message": "Which parrot?", "contact_id": CONTACT}
            request = build_run_request(
                up.graphs[spec.name],
                spec,
                build_graph_input(spec, given),
                identity=LOCAL,
                thread_id="shared",
                run_id=run_id,
            )
            new = NewRun(
                id=run_id,
                thread_id="shared",
                tenant=LOCAL.tenant,
                user=LOCAL.user,
                graph=spec.name,
                queue="runs",
                kwargs=dump_request(request),
                strategy="enqueue",
            )
            # A caller of the dead replica waited for the first one; nobody waits for the second.
            await dead.add(
                new, may_start=False, may_wait=True, places=None, queue_length=9, held=run_id == ids[0]
            )

        async def have_ended() -> bool:
            rows = [await up.run_store.get(run_id) for run_id in ids]
            return all(row and row.status == "success" for row in rows)

        await until_true(have_ended)
