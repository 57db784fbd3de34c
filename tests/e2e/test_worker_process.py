"""``make worker``, as an operator runs it beside replicas that only serve HTTP."""

import asyncio
import signal
from asyncio.subprocess import Process
from pathlib import Path

from core.postgres import Pool
from tests.support.audit import fetch_rows
from tests.support.process import client, launch, service_process
from tests.support.service import CONTACT

WORKER = ("-m", "service.cli.worker")


async def read_startup_message(process: Process) -> str:
    """Return what a worker prints when it is ready."""
    assert process.stdout
    message = ""
    while "at once" not in message:
        line = (await process.stdout.readline()).decode()
        assert line, (await process.communicate())[1].decode()
        message += line
    return message


async def test_a_worker_does_the_jobs_of_a_service_that_does_none_and_stops_cleanly(
    tmp_path: Path, database_url: str, pool: Pool
) -> None:
    settings = {"DATABASE_URL": database_url, "SESSION_IDLE_SECONDS": "5", "SESSION_SWEEP_SECONDS": "0.5"}
    summarised = "SELECT summary FROM sessions.sessions WHERE contact_id = %s AND summary IS NOT NULL"
    async with (
        service_process(tmp_path / "service", **settings, QUEUE_CONCURRENCY="0") as service,
        client(service.url) as http,
    ):
        body = {"contact_id": CONTACT, "message": "Where is my invoice?", "channel_id": "whatsapp"}
        (await http.post("/v1/messages", json=body)).raise_for_status()
        worker = await launch(tmp_path / "worker", *WORKER, **settings, QUEUE_CONCURRENCY="2")
        assert "2 at once" in await read_startup_message(worker)
        while not await fetch_rows(pool, summarised, CONTACT):  # noqa: ASYNC110 - it watches a row
            await asyncio.sleep(0.05)
        [session] = (await http.get("/v1/sessions", params={"contact_id": CONTACT})).json()["sessions"]
        assert "invoice" in session["summary"]
        worker.send_signal(signal.SIGTERM)
        _, errors = await worker.communicate()
    assert worker.returncode == 0, errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_worker_that_may_run_no_jobs_does_not_start(tmp_path: Path, database_url: str) -> None:
    process = await launch(tmp_path, *WORKER, DATABASE_URL=database_url, QUEUE_CONCURRENCY="0")
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert "QUEUE_CONCURRENCY=0" in errors.decode()
