"""A workflow whose service is killed resumes by itself."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.process import client, service_process, stop_orphaned_postgres
from tests.support.waiting import until
from tests.support.workflow_server import CountingServer, counting_server


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop_orphaned_postgres(tmp_path)


def workflow(server: CountingServer) -> dict[str, Any]:
    """Two calls one after the other, four beside each other, and one that waits for all of them."""
    calls = [
        {"id": name, "type": "api_call", "method": "POST", "url": f"{server.url}/echo/{name}", "attempts": 1}
        for name in ("first", "second", "a", "b", "c", "d", "last")
    ]
    parallel = {"id": "beside", "type": "parallel", "steps": calls[2:6]}
    return {
        "name": "killed",
        "steps": [*calls[:2], parallel, calls[6]],
        "result": "{{ steps.last.output.body.path }}",
    }


async def test_a_killed_workflow_resumes_and_repeats_only_the_interrupted_call(data_dir: Path) -> None:
    async with counting_server() as server:
        settings = {
            "WORKFLOW_ALLOWED_HOSTS": server.host,
            "RUN_CLAIM_SECONDS": "1",
            "QUEUE_STALLED_SECONDS": "1",
        }
        server.hold.add(":c")
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            body = {"definition": workflow(server), "client_id": "order-7"}
            started = (await http.post("/v1/workflows", json=body)).raise_for_status().json()
            await until(lambda: len(server.calls) == 6)
            # The three that were answered are kept, though the super-step is not over.
            await until_done(http, started["id"], 5)
            service.send(signal.SIGKILL)
            await service.wait()
        server.hold.clear()
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            report = (await http.post("/v1/workflows", json={**body, "wait": True})).json()
    assert (report["id"], report["status"], report["done"], report["total"]) == (
        started["id"],
        "succeeded",
        7,
        7,
    )
    assert report["result"] == "/echo/last"
    # Each step's key is its own, and the same when the step is tried again.
    assert server.calls == {
        f"{started['id']}:{name}": 1 + (name == "c") for name in (*"abcd", "first", "second", "last")
    }


async def until_done(http: httpx.AsyncClient, run_id: str, steps: int) -> None:
    while (await http.get(f"/v1/workflows/{run_id}")).raise_for_status().json()["done"] < steps:
        pass
