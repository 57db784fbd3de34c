"""What a caller notices while the database is unavailable, and after it has recovered."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from langchain_core.messages import AIMessage
from pydantic import SecretStr

from core.settings import DatabaseSettings
from tests.support.database import Database, database
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service
from tests.support.waiting import until

# How long a request waits for a connection; 10 s unless set.
PATIENCE = 0.5
# Room for a slow machine, far below the sixty seconds of a patient service.
SLACK = 20
SEND = ("send_solution_to_customer", {"solution": "Use batches."})


@asynccontextmanager
async def service_on(database: Database, model: ScriptedChatModel) -> AsyncIterator[RunningService]:
    settings = DatabaseSettings(
        url=SecretStr(database.url), pool_min_size=1, pool_max_size=4, connect_timeout_seconds=PATIENCE
    )
    async with running_service(database.url, scripted_models(model), database=settings) as running:
        yield running


async def ask(running: RunningService, path: str = "/react/invoke", thread_id: str = "t1") -> httpx.Response:
    body = {
        "input": {"task": "Hello", "contact_id": CONTACT},
        "config": {"configurable": {"thread_id": thread_id}},
    }
    return await running.http.post(path, json=body)


async def healthy(running: RunningService, within: float) -> None:
    """Wait until the service reports that it is healthy."""
    async with asyncio.timeout(within):
        while (await running.http.get("/health")).status_code != 200:  # noqa: ASYNC110 - another's doing
            # A service that knows of the outage answers at once.
            await asyncio.sleep(0.02)


def assert_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"error", "message", "details"}
    assert body["error"] == "database_unavailable"
    assert "nothing was lost, try again" in body["message"]
    assert int(response.headers["Retry-After"]) >= 1
    for inside in ("Traceback", "psycopg", "PGSQL", "File "):
        assert inside not in response.text


async def test_the_service_reports_a_database_outage_and_recovers_from_it(
    tmp_path: Path,
) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Nice to meet you."), AIMessage("We met.")])
    async with database(tmp_path) as db, service_on(db, model) as running:
        health = await running.http.get("/health")
        assert (health.json()["status"], health.json()["checks"]) == (
            "healthy",
            {"database": "up", "writes": "up", "memory": "up", "embeddings": "up"},
        )
        assert (await ask(running)).status_code == 200
        await db.stop()

        began = time.monotonic()
        health = await running.http.get("/health")
        assert time.monotonic() - began < 2 + SLACK
        assert health.status_code == 503
        body = health.json()
        assert body.pop("message").startswith("the database is down: ")
        assert body == {
            "status": "unhealthy",
            "checks": {"database": "down"},
            "error": "database_unavailable",
            "details": {"down": ["database"]},
        }

        began = time.monotonic()
        assert_unavailable(await ask(running))
        assert time.monotonic() - began < PATIENCE + SLACK
        assert_unavailable(await ask(running, "/react/stream", thread_id="t2"))
        assert running.service.runs.active == 0
        assert (await running.http.get("/info")).status_code == 200

        await db.start()
        await healthy(running, within=60)
        # The thread has not forgotten what was said before.
        answered = await ask(running)
        assert answered.status_code == 200
        assert [message["content"] for message in answered.json()["output"]["messages"]] == [
            "Hello",
            "Nice to meet you.",
            "Hello",
            "We met.",
        ]


async def test_health_and_the_error_say_that_the_disk_is_full(database_url: str) -> None:
    """A trigger refuses what the server would refuse; the database answers all the while."""
    full = """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END
        $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON checkpoints EXECUTE FUNCTION refuse();
        CREATE TRIGGER full_disk BEFORE INSERT ON checkpoint_writes EXECUTE FUNCTION refuse();
    """
    model = ScriptedChatModel(replies=[AIMessage("Nice to meet you.")])
    async with running_service(database_url, scripted_models(model)) as running:
        async with running.service.pool.connection() as connection:
            await connection.execute(full, prepare=False)
        refused = await ask(running)
        assert_unavailable(refused)
        assert "accepts no writes, because its disk is full" in refused.json()["message"]
        health = await running.http.get("/health")
        assert (health.status_code, health.json()["checks"]) == (
            503,
            {"database": "up", "writes": "down"},
        )
        assert "DiskFull" in health.json()["message"]
        async with running.service.pool.connection() as connection:
            await connection.execute("DROP TRIGGER full_disk ON checkpoints")
            await connection.execute("DROP TRIGGER full_disk ON checkpoint_writes")
        assert (await ask(running)).status_code == 200
        assert (await running.http.get("/health")).json()["status"] == "healthy"


async def test_a_run_that_loses_the_database_fails_and_its_thread_resumes(
    tmp_path: Path,
) -> None:
    model = ScriptedChatModel(replies=[calling("I send it.", SEND), AIMessage("It was sent.")])
    async with database(tmp_path) as db, service_on(db, model) as running:

        async def lose() -> None:
            model.before_token = None
            await db.kill()

        model.before_token = lose
        assert_unavailable(await ask(running))
        await db.start()
        await healthy(running, within=60)
        answered = await ask(running)
        assert answered.status_code == 200
        assert answered.json()["output"]["final_answer"] == "It was sent."
        assert running.service.runs.active == 0


async def test_concurrent_requests_during_an_outage_fail_equally_fast(tmp_path: Path) -> None:
    async with database(tmp_path) as db, service_on(db, ScriptedChatModel()) as running:
        await db.stop()
        began = time.monotonic()
        refused = await asyncio.gather(*(ask(running, thread_id=f"t{number}") for number in range(8)))
        assert time.monotonic() - began < PATIENCE + SLACK
        for response in refused:
            assert_unavailable(response)


async def test_the_next_request_after_a_cut_connection_is_answered(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("One."), AIMessage("Two.")])
    async with running_service(database_url, scripted_models(model)) as running:
        assert (await ask(running)).status_code == 200
        async with running.service.pool.connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert (await running.http.get("/health")).status_code == 200
        assert (await ask(running)).status_code == 200


async def test_requests_do_not_wait_for_a_database_known_to_be_unavailable(tmp_path: Path) -> None:
    patient = DatabaseSettings(pool_min_size=1, pool_max_size=2, connect_timeout_seconds=60)
    model = ScriptedChatModel(replies=[AIMessage("Welcome back.")])
    async with database(tmp_path) as db:
        settings = patient.model_copy(update={"url": SecretStr(db.url)})
        async with running_service(db.url, scripted_models(model), database=settings) as running:
            assert (await running.http.get("/health/ready")).json() == {"status": "ready"}
            await db.stop()
            # Asked before anybody has noticed; of the sixty seconds it might wait it waits none.
            early = asyncio.create_task(ask(running))
            await until(lambda: running.service.pool.unavailable_reason)
            assert_unavailable(await early)

            ready = await running.http.get("/health/ready")
            assert (ready.status_code, ready.json()["error"]) == (503, "database_unavailable")
            assert (await running.http.get("/health/live")).json() == {"status": "alive"}
            # A route without a run says it too, with all that every answer has, and is counted.
            listed = await running.http.get("/v1/sessions", params={"contact_id": CONTACT})
            assert_unavailable(listed)
            assert listed.headers["X-Request-Id"]
            assert listed.headers["X-Content-Type-Options"] == "nosniff"
            counted = (await running.http.get("/metrics")).text
            assert 'http_requests_total{method="GET",route="/v1/sessions",status="503"} 1.0' in counted
            began = time.monotonic()
            for number in range(5):
                assert_unavailable(await ask(running, thread_id=f"t{number}"))
                fresh = {"input": {"task": "Hello", "contact_id": CONTACT}}
                assert_unavailable(await running.http.post("/react/invoke", json=fresh))
                message = {"contact_id": CONTACT, "message": "Hello"}
                assert_unavailable(await running.http.post("/v1/messages", json=message))
            assert time.monotonic() - began < SLACK
            assert running.service.runs.active == 0

            await db.start()
            await until(lambda: not running.service.pool.unavailable_reason)
            assert (await running.http.get("/health/ready")).status_code == 200
            assert (await ask(running)).status_code == 200
