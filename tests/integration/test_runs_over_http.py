"""``/v1/runs``: what a caller sees of runs, and what becomes of those whose replica is gone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import AIMessage

from core.errors import CrmUnavailable
from core.settings import QueueSettings, RunSettings
from nodes.react.state import Reflection
from tests.support.audit import fetch_rows
from tests.support.general_agent import service
from tests.support.scripted import ScriptedChatModel, calling
from tests.support.service import CONTACT, RunningService
from tests.support.waiting import until

TOLD = Reflection(success=True, reasoning="Done.", task_complete=True, final_answer="Told.")
MESSAGE = ("send_solution_to_customer", {"solution": "Use the batch export API."})
INPUT = {"task": "Export fails.", "contact_id": CONTACT}


@pytest.fixture
def model() -> ScriptedChatModel:
    return ScriptedChatModel()


@pytest.fixture
async def up(database_url: str, model: ScriptedChatModel) -> AsyncIterator[RunningService]:
    async with service(
        database_url, model, runs=RunSettings(claim_seconds=1), queue=QueueSettings()
    ) as running:
        yield running


async def ask(up: RunningService, thread_id: str) -> Any:
    body = {"input": INPUT, "config": {"configurable": {"thread_id": thread_id}}}
    return await up.http.post("/react/invoke", json=body)


async def get_runs(up: RunningService, **filters: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = (await up.http.get("/v1/runs", params=filters)).json()["runs"]
    return runs


async def test_a_run_is_listed_and_its_answer_can_be_asked_for_again(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies += [AIMessage("Use the batch API."), AIMessage("You are welcome.")]
    first = (await ask(up, "listed")).json()["output"]
    await ask(up, "listed")
    [second_run, run] = await get_runs(up, thread_id="listed")
    assert (run["status"], run["graph"], run["attempt"], run["replica"]) == ("success", "react", 1, None)
    assert UUID(run["id"]) < UUID(second_run["id"])
    answer = (await up.http.get(f"/v1/runs/{run['id']}/wait")).json()
    assert answer["output"]["final_answer"] == first["final_answer"]
    assert (await up.http.get(f"/v1/runs/{run['id']}")).json() == run
    assert await get_runs(up, status="error") == await get_runs(up, graph="planning") == []
    for wrong in ("x", "9" * 19, "-1"):
        refused = await up.http.get(f"/v1/runs/{run['id']}/stream", headers={"Last-Event-ID": wrong})
        assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
    missing = await up.http.get(f"/v1/runs/{uuid4()}")
    assert (missing.status_code, missing.json()["error"]) == (404, "not_found")


async def test_a_refused_run_leaves_nothing_behind(up: RunningService) -> None:
    body = {"input": {"resume": None}, "config": {"configurable": {"thread_id": "unknown"}}}
    refused = await up.http.post("/react/invoke", json=body)
    assert (refused.status_code, refused.json()["error"]) == (409, "nothing_to_resume")
    assert await get_runs(up) == []
    assert (await up.http.delete("/v1/threads/unknown")).status_code == 404


async def test_a_run_is_cancelled_while_it_runs_and_while_it_waits(
    up: RunningService, model: ScriptedChatModel
) -> None:
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    model.replies += [calling("I tell them.", MESSAGE), TOLD]
    model.before_token = hold
    running = asyncio.create_task(ask(up, "cancelled"))
    await until(lambda: model.prompts)
    waiting = asyncio.create_task(ask(up, "cancelled"))
    while len(open_runs := await get_runs(up, thread_id="cancelled")) < 2:
        pass
    for run in open_runs:
        answer = await up.http.post(f"/v1/runs/{run['id']}/cancel")
        assert answer.status_code == 202, answer.text
    assert (await waiting).status_code == 503
    gate.set()
    assert (await running).status_code == 503
    assert [run["status"] for run in await get_runs(up, thread_id="cancelled")] == ["interrupted"] * 2
    again = await up.http.post(f"/v1/runs/{open_runs[0]['id']}/cancel")
    assert (again.status_code, again.json()["error"]) == (404, "not_found")


async def test_operators_see_what_runs_and_what_waits(up: RunningService, model: ScriptedChatModel) -> None:
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    model.replies += [AIMessage("First."), AIMessage("Second.")]
    model.before_token = hold
    asking = [asyncio.create_task(ask(up, "seen")) for _ in range(2)]
    while len(await get_runs(up, thread_id="seen")) < 2:
        pass
    shown = ""
    while 'status="pending",tenant="default"} 1.0' not in shown:
        shown = (await up.http.get("/metrics")).text
    assert 'ventros_runs_oldest_seconds{queue="runs",status="pending",tenant="default"}' in shown
    assert 'status="running",tenant="default"} 1.0' in shown
    gate.set()
    await asyncio.gather(*asking)
    assert 'ventros_run_claims_total{outcome="first"} 2.0' in (await up.http.get("/metrics")).text


async def test_a_run_whose_replica_died_is_executed_by_another(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies += [calling("I tell them.", MESSAGE), TOLD]
    gate, begun = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        begun.set()
        await gate.wait()

    model.before_token = hold
    asking = asyncio.create_task(ask(up, "died"))
    await begun.wait()
    # Its replica is another one, and has been silent since.
    [row] = await fetch_rows(
        up.service.pool,
        "UPDATE runs.runs SET claimed_by = gen_random_uuid(), claim_expires_at = now() - interval '1 second' "
        "WHERE thread_id = %s RETURNING id",
        "died",
    )
    model.replies.insert(0, calling("I tell them.", MESSAGE))
    model.before_token = None
    answer = (await up.http.get(f"/v1/runs/{row['id']}/wait")).json()
    assert (answer["status"], answer["attempt"], answer["output"]["final_answer"]) == ("success", 2, "Told.")
    gate.set()
    assert (await asking).status_code == 503
    [effect] = await fetch_rows(up.service.pool, "SELECT attempts, state FROM audit.effects")
    assert (effect["attempts"], effect["state"]) == (1, "finished")


async def test_a_run_that_died_too_often_ends_and_can_be_retried_by_hand(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies.append(CrmUnavailable("nobody is there"))
    await ask(up, "worn-out")
    [run] = await get_runs(up, thread_id="worn-out")
    await fetch_rows(
        up.service.pool,
        "UPDATE runs.runs SET status = 'running', attempt = 3, ended_at = NULL, "
        "claimed_by = gen_random_uuid(), claim_expires_at = now() - interval '1 second' "
        "WHERE thread_id = %s RETURNING id",
        "worn-out",
    )
    ended = (await up.http.get(f"/v1/runs/{run['id']}/wait")).json()
    assert (ended["status"], ended["error"]["error"], ended["output"]) == ("error", "run_lost", None)
    model.replies.append(AIMessage("Use the batch API."))
    retried = await up.http.post(f"/v1/runs/{run['id']}/retry")
    assert retried.status_code == 202, retried.text
    answer = (await up.http.get(f"/v1/runs/{run['id']}/wait")).json()
    assert (answer["status"], answer["attempt"]) == ("success", 4)
    refused = await up.http.post(f"/v1/runs/{run['id']}/retry")
    assert (refused.status_code, refused.json()["error"]) == (409, "thread_busy")
