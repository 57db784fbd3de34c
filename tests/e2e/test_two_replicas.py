"""Two replicas as processes on one database: what callers notice when both work, and when one is gone."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from checkpoints.pool import open_pool
from core.postgres import Pool
from core.settings import DatabaseSettings
from tests.support.audit import fetch_rows
from tests.support.database import database
from tests.support.gemini import FunctionCalls, Gated, GeminiServer, Structured, Text, gemini_server
from tests.support.process import LOCAL_EMBEDDINGS, ServiceProcess, replica_processes
from tests.support.service import CONTACT, EXPORT_TASK
from tests.support.waiting import until

Replicas = list[ServiceProcess]

KEY = "AIza-not-a-real-key"
INPUT = {"task": EXPORT_TASK, "contact_id": CONTACT}
# As many as `make test` has time for; `make chaos` asks for more.
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "8"))
CLAIM_SECONDS = 2
SHORT_CLAIMS = {"RUN_CLAIM_SECONDS": str(CLAIM_SECONDS), "QUEUE_STALLED_SECONDS": "3"}
PROCEED = {
    "success": True,
    "reasoning": "Not yet.",
    "task_complete": False,
    "suggested_next_action": "answer",
}
RUNS_SQL = """
SELECT status, attempt, started_at, ended_at FROM runs.runs WHERE thread_id = %s ORDER BY started_at
"""
EFFECTS_SQL = "SELECT attempts FROM audit.effects WHERE thread_id = %s"
STATUSES_SQL = "SELECT DISTINCT status FROM runs.runs WHERE tenant = %s"
# An effect that was made again would have two attempts.
REPEATED_SQL = "SELECT key FROM audit.effects WHERE tenant = %s AND attempts > 1"
CHECKPOINTS_SQL = "SELECT checkpoint_id FROM checkpoints WHERE thread_id = %s ORDER BY checkpoint_id"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
async def shared_pool(shared_database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(shared_database_url, DatabaseSettings(pool_min_size=0)) as opened:
        yield opened


@pytest.fixture(scope="module")
async def gemini() -> AsyncIterator[GeminiServer]:
    async with gemini_server() as server:
        yield server


@pytest.fixture(scope="module")
async def scripted(
    shared_database_url: str, gemini: GeminiServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Replicas]:
    """Replicas whose model answers as a test says."""
    settings = {"GOOGLE_API_KEY": KEY, "GOOGLE_BASE_URL": gemini.url, **LOCAL_EMBEDDINGS, **SHORT_CLAIMS}
    folder = tmp_path_factory.mktemp("scripted")
    async with replica_processes(shared_database_url, folder, settings) as replicas:
        yield replicas


async def ask(
    http: httpx.AsyncClient, replica: ServiceProcess, thread_id: str = "", key: str = ""
) -> httpx.Response:
    config = {"configurable": {"thread_id": thread_id}} if thread_id else {}
    headers = {"Idempotency-Key": key} if key else {}
    body = {"input": INPUT, "config": config}
    return await http.post(f"{replica.url}/react/invoke", json=body, headers=headers)


async def ask_any(http: httpx.AsyncClient, replicas: Replicas, key: str) -> httpx.Response:
    """Ask like a caller behind a load balancer: the next replica where one cannot be reached or stops."""
    answer = None
    for attempt in range(200):
        try:
            answer = await ask(http, replicas[attempt % len(replicas)], key=key)
        except httpx.TransportError:
            continue
        finally:
            # As Retry-After asks, in short.
            await asyncio.sleep(0.05)
        if answer.status_code == 200:
            return answer
    raise AssertionError(f"no replica answered: {answer and answer.text}")


async def follow(
    http: httpx.AsyncClient, replica: ServiceProcess, run_id: str, *, after: str = "", last: str = "done"
) -> list[ServerSentEvent]:
    headers: dict[str, Any] = {"Last-Event-ID": after} if after else {}
    events: list[ServerSentEvent] = []
    url = f"{replica.url}/v1/runs/{run_id}/stream"
    async with aconnect_sse(http, "GET", url, headers=headers) as source:
        async for event in source.aiter_sse():
            events.append(event)
            if event.event == last:
                break
    return events


async def begin_held_run(
    http: httpx.AsyncClient, gemini: GeminiServer, replicas: Replicas, thread_id: str
) -> tuple[asyncio.Task[httpx.Response], Gated, str]:
    """Begin a run on the first replica that looks something up and is held in its next thought."""
    gate = Gated(["Let me", " think."])
    search = ("search_knowledge_base", {"query": "export"})
    gemini.enqueue(FunctionCalls([search]), Structured(PROCEED), gate)
    asking = asyncio.create_task(ask(http, replicas[0], thread_id))
    await gate.started.wait()
    [run] = (await http.get(f"{replicas[1].url}/v1/runs?thread_id={thread_id}")).json()["runs"]
    # What the model says to the replica that takes over.
    gemini.enqueue(Text(["Use the batch API."]))
    return asking, gate, run["id"]


async def test_a_replica_that_was_suspended_past_its_claim_writes_nothing_to_the_thread(
    scripted: Replicas, gemini: GeminiServer, shared_pool: Pool, http: httpx.AsyncClient
) -> None:
    asking, gate, run_id = await begin_held_run(http, gemini, scripted, "suspended")
    scripted[0].send(signal.SIGSTOP)
    answer = (await http.get(f"{scripted[1].url}/v1/runs/{run_id}/wait")).json()
    assert (answer["status"], answer["attempt"]) == ("success", 2)
    before = await fetch_rows(shared_pool, CHECKPOINTS_SQL, "suspended")
    scripted[0].send(signal.SIGCONT)
    gate.release(9)
    refused = await asking
    assert (refused.status_code, refused.json()["error"]) in {(503, "claim_lost"), (503, "run_stopped")}
    assert await fetch_rows(shared_pool, CHECKPOINTS_SQL, "suspended") == before
    gemini.enqueue(Text(["Still here."]))
    answered = await ask_any(http, scripted[:1], "afterwards")
    assert answered.json()["output"]["final_answer"] == "Still here."


async def test_another_replica_finishes_the_run_of_one_that_was_killed_and_the_stream_goes_on_there(
    scripted: Replicas, gemini: GeminiServer, shared_pool: Pool, http: httpx.AsyncClient
) -> None:
    asking, _, run_id = await begin_held_run(http, gemini, scripted, "killed")
    seen = await follow(http, scripted[1], run_id, last="observation")
    killed_at = asyncio.get_running_loop().time()
    scripted[0].send(signal.SIGKILL)
    with pytest.raises(httpx.TransportError):
        await asking
    rest = await follow(http, scripted[1], run_id, after=seen[-1].id)
    assert asyncio.get_running_loop().time() - killed_at < CLAIM_SECONDS + 5
    assert rest[-1].event == "done"
    assert rest[-1].json()["output"]["final_answer"] == "Use the batch API."
    assert [event.json()["attempt"] for event in rest if event.event == "attempt"] == [2]
    assert int(rest[0].id) > int(seen[-1].id)
    [row] = await fetch_rows(shared_pool, RUNS_SQL, "killed")
    assert (row["status"], row["attempt"]) == ("success", 2)


async def test_both_replicas_at_once_are_like_one_and_neither_is_missed_in_a_rolling_deploy(
    database_url: str, pool: Pool, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with replica_processes(database_url, tmp_path, {}) as replicas:
        for number in range(ROUNDS):
            thread = f"shared-{number}"
            answers = await asyncio.gather(*(ask(http, replica, thread) for replica in replicas))
            assert [answer.status_code for answer in answers] == [200, 200]
            first, second = await fetch_rows(pool, RUNS_SQL, thread)
            assert first["ended_at"] <= second["started_at"]
        for number in range(ROUNDS):
            both = await asyncio.gather(*(ask(http, one, key=f"key-{number}") for one in replicas))
            outputs = [answer.json()["output"] for answer in both]
            assert outputs[0] == outputs[1]
            thread = outputs[0]["thread_id"]
            assert [row["attempt"] for row in await fetch_rows(pool, RUNS_SQL, thread)] == [1]
            assert {row["attempts"] for row in await fetch_rows(pool, EFFECTS_SQL, thread)} <= {1}

        slots, half = asyncio.Semaphore(4), asyncio.Event()

        async def send(number: int) -> httpx.Response:
            async with slots:
                order = replicas if number % 2 else replicas[::-1]
                answer = await ask_any(http, order, f"rolling-{number}")
                if number == ROUNDS:
                    half.set()
                return answer

        sending = [asyncio.create_task(send(number)) for number in range(2 * ROUNDS)]
        await half.wait()
        replicas[0].send(signal.SIGTERM)
        assert {answer.status_code for answer in await asyncio.gather(*sending)} == {200}
        assert await replicas[0].wait() == 0
        assert [row["status"] for row in await fetch_rows(pool, STATUSES_SQL, "default")] == ["success"]
        assert await fetch_rows(pool, REPEATED_SQL, "default") == []


async def test_no_acknowledged_run_is_lost_while_the_database_restarts(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    restarts = max(2, min(5, ROUNDS // 4))
    async with database(tmp_path) as db, replica_processes(db.url, tmp_path, SHORT_CLAIMS) as replicas:
        acknowledged: list[str] = []
        is_over = asyncio.Event()

        async def send(number: int) -> None:
            order = replicas if number % 2 else replicas[::-1]
            while not is_over.is_set():
                answer = await ask_any(http, order, f"restart-{number}-{len(acknowledged)}")
                acknowledged.append(answer.headers["X-Thread-Id"])

        async def reach(runs: int) -> None:
            await until(lambda: len(acknowledged) >= runs)

        sending = [asyncio.create_task(send(number)) for number in range(3)]
        for restart in range(restarts):
            await reach(3 * (restart + 1))
            await (db.kill() if restart % 2 else db.stop())
            await db.start()
        await reach(3 * (restarts + 1))
        is_over.set()
        await asyncio.gather(*sending)
        listed = await http.get(f"{replicas[0].url}/v1/runs?status=success&limit=500")
        succeeded = Counter(run["thread_id"] for run in listed.json()["runs"])
        assert {thread for thread in acknowledged if not succeeded[thread]} == set()
