"""``WORKERS=2``, as an operator runs it: two processes behind one port, replaced and stopped together."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gemini import FunctionCalls, Gated, Structured, Text, gemini_server
from tests.support.process import (
    LOCAL_EMBEDDINGS,
    ServiceProcess,
    client,
    service_process,
    start_and_fail,
    stop_orphaned_postgres,
)
from tests.support.service import CONTACT

KEY = "AIza-not-a-real-key"
PROCEED = {
    "success": True,
    "reasoning": "Not yet.",
    "task_complete": False,
    "suggested_next_action": "answer",
}
SEARCH = ("search_knowledge_base", {"query": "export"})


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory; an embedded Postgres that a killed service left behind is ended with the test."""
    yield tmp_path
    stop_orphaned_postgres(tmp_path)


def list_workers(service: ServiceProcess) -> list[psutil.Process]:
    """Return the processes that serve, in the order of their numbers unless one was replaced."""
    children = psutil.Process(service.process.pid).children()
    return sorted((one for one in children if one.name() != "postgres"), key=psutil.Process.create_time)


async def read_metric(url: str, name: str, **labels: str) -> dict[str, float]:
    """Return the sums of a metric by process, over a connection of its own."""
    async with client(url) as http:
        text = (await http.get("/metrics")).text
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                process = sample.labels["process"]
                sums[process] = sums.get(process, 0) + sample.value
    return sums


async def ask(http: httpx.AsyncClient, thread_id: str) -> httpx.Response:
    body = {
        "input": {"task": "Export fails.", "contact_id": CONTACT},
        "config": {"configurable": {"thread_id": thread_id}},
    }
    return await http.post("/react/invoke", json=body)


async def test_two_processes_answer_on_one_port_and_sigterm_lets_the_runs_of_both_finish(
    data_dir: Path,
) -> None:
    async with gemini_server() as gemini:
        settings = {
            "WORKERS": "2",
            "GOOGLE_API_KEY": KEY,
            "GOOGLE_BASE_URL": gemini.url,
            "RUN_FINISH_SECONDS": "60",
            "LOG_LEVEL": "info",
            **LOCAL_EMBEDDINGS,
        }
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            assert service.startup_message.count("Ventros Agents") == 1
            workers = list_workers(service)
            assert len(workers) == 2
            assert await read_metric(service.url, "ventros_process_up") == {"1": 1, "2": 1}
            served: dict[str, float] = {}
            while len(served) < 2:
                async with client(service.url) as other:
                    health = (await other.get("/health")).json()
                assert health["status"] == "healthy", health
                assert {one["status"] for one in health["processes"].values()} == {"healthy"}
                served = await read_metric(service.url, "ventros_http_requests_total", route="/health")
            asking: list[asyncio.Task[httpx.Response]] = []
            gates: list[Gated] = []
            busy: set[str] = set()
            # Whichever process accepts a connection has the run.
            while len(busy) < 2:
                gate = Gated(["Use the", " batch API."])
                gemini.enqueue(gate)
                asking.append(asyncio.create_task(ask(http, f"drained-{len(asking)}")))
                await gate.started.wait()
                gates.append(gate)
                running = await read_metric(service.url, "ventros_runs_in_progress", graph="react")
                busy = {process for process, runs in running.items() if runs}
            service.send(signal.SIGTERM)
            for gate in gates:
                gate.release(2)
            for answer in await asyncio.gather(*asking):
                assert answer.json()["output"]["final_answer"] == "Use the batch API.", answer.text
            _, errors = await service.process.communicate()
            assert service.process.returncode == 0, errors.decode()
            assert [worker for worker in workers if worker.is_running()] == []
    lines = errors.decode()
    assert '"process": 1' in lines
    assert '"process": 2' in lines
    assert "Traceback" not in lines


async def test_a_killed_process_is_replaced_and_those_of_a_killed_supervisor_leave_the_directory_to_the_next(
    data_dir: Path,
) -> None:
    async with gemini_server() as gemini:
        settings = {
            "WORKERS": "2",
            "GOOGLE_API_KEY": KEY,
            "GOOGLE_BASE_URL": gemini.url,
            "RUN_CLAIM_SECONDS": "2",
            **LOCAL_EMBEDDINGS,
        }
        gate = Gated(["Let me", " think."])
        gemini.enqueue(FunctionCalls([SEARCH]), Structured(PROCEED), gate)
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            asking = asyncio.create_task(ask(http, "killed"))
            await gate.started.wait()
            running = await read_metric(service.url, "ventros_runs_in_progress", graph="react")
            [number] = [int(process) for process, runs in running.items() if runs]
            workers = list_workers(service)
            gemini.enqueue(Text(["Use the batch API."]))
            workers[number - 1].kill()
            with pytest.raises(httpx.TransportError):
                await asking
            run: dict[str, Any] = {"status": "running"}
            while run["status"] in {"running", "pending"}:
                async with client(service.url) as other:
                    runs = await other.get("/v1/runs", params={"thread_id": "killed"})
                [run] = runs.json()["runs"]
            assert (run["status"], run["attempt"]) == ("success", 2)
            while await read_metric(service.url, "ventros_process_up") != {"1": 1, "2": 1}:
                pass
            assert workers[2 - number].is_running()
            workers = list_workers(service)
            assert len(workers) == 2
            service.send(signal.SIGKILL)
            await service.process.wait()
            _, alive = await asyncio.to_thread(psutil.wait_procs, workers, timeout=60)
            assert alive == []
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            assert (await http.get("/health")).json()["status"] == "healthy"


async def test_a_failure_to_start_several_processes_is_explained_in_one_line(data_dir: Path) -> None:
    url = "postgresql://nobody:secret@127.0.0.1:1/none"
    code, errors = await start_and_fail(data_dir, WORKERS="2", DATABASE_URL=url)
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "127.0.0.1:1/none (DATABASE_URL)" in errors

    code, errors = await start_and_fail(data_dir, WORKERS="12")
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "DATABASE_POOL_MAX_SIZE=16" in errors
