"""What an operator notices: starting, stopping, crashing, and what is said when it cannot start."""

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.gemini import FunctionCalls, Gated, Structured, Text, gemini_server
from tests.support.process import (
    LOCAL_EMBEDDINGS,
    client,
    launch,
    service_process,
    start_and_fail,
    stop_orphaned_postgres,
)
from tests.support.service import CONTACT, EXPORT_TASK

KEY = "AIza-not-a-real-key"
INPUT = {"task": EXPORT_TASK, "contact_id": CONTACT}
PROCEED = {
    "success": True,
    "reasoning": "Not yet.",
    "task_complete": False,
    "suggested_next_action": "answer",
}


def held_reflection() -> Gated:
    """Return the reply of a step that another one follows, in pieces that the test releases."""
    text = json.dumps(PROCEED)
    return Gated([text[:20], text[20:]])


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory; an embedded Postgres that a killed service left behind is ended with the test."""
    yield tmp_path
    stop_orphaned_postgres(tmp_path)


async def test_a_fresh_service_solves_the_support_case_offline(data_dir: Path) -> None:
    # As it is shipped, with an index of the help articles.
    index = {"CRM_ARTICLES_SYNC_SECONDS": "300"}
    async with service_process(data_dir, **index) as service, client(service.url) as http:
        assert "it is not a language model" in service.startup_message
        assert f"{service.url}/react/playground/" in service.startup_message
        assert (await http.get("/health")).json()["status"] == "healthy"
        output = (await http.post("/react/invoke", json={"input": INPUT})).json()["output"]
        assert output["success"] is True
        assert "batch export API" in output["final_answer"]
        assert "10K" in output["final_answer"]
        used = {entry["action"]["tool"] for entry in output["trace"] if entry["action"]}
        assert len(used) >= 3
        assert output["metadata"]["is_language_model"] is False
        # Workflows read the development CRM's database without a setting.
        etl = (await http.post("/v1/workflows", json={"name": "customer_data_etl", "wait": True})).json()
        assert (etl["status"], etl["result"]["loaded"] != []) == ("succeeded", True), etl
        service.send(signal.SIGTERM)
        assert await service.wait() == 0
    left = [process.name() for process in psutil.process_iter() if str(data_dir) in _command(process)]
    assert left == []


async def test_commands_and_other_services_work_beside_a_running_one_but_not_two_on_a_directory(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run_command(*arguments: str) -> str:
        process = await launch(data_dir, "-m", *arguments)
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode().strip()

    async with service_process(data_dir, AUTH_API_KEYS="true") as service, client(service.url) as http:
        key = await run_command("service.cli.keys", "create", "--tenant", "acme", "--scope", "runs")
        assert (await http.get("/info", headers={"Authorization": f"Bearer {key}"})).status_code == 200
        while not (verdict := await run_command("service.cli.database", "verify-audit")).startswith("ok "):
            # The service has not written the entry of the new key yet.
            assert "not linked yet" in verdict
        assert verdict.startswith("ok      acme: ")
        assert "would be removed" in await run_command("service.cli.database", "retention", "--dry-run")
        async with service_process(tmp_path_factory.mktemp("other")) as other, client(other.url) as theirs:
            assert other.url != service.url
            for each in (http, theirs):
                assert (await each.get("/health")).status_code == 200
        code, errors = await start_and_fail(data_dir)
        assert (code, len(errors.splitlines())) == (1, 1)
        assert "in use by another service" in errors
    # Without the service, the commands start its database themselves.
    assert key[3:19] in await run_command("service.cli.keys", "list")


async def test_a_failure_to_start_is_explained_in_one_line(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, errors = await start_and_fail(data_dir, PORT=port)
    assert (code, len(errors.splitlines())) == (1, 1)
    assert f"127.0.0.1:{port}" in errors
    assert "set HOST and PORT" in errors

    code, errors = await start_and_fail(data_dir, DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/none")
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "127.0.0.1:1/none (DATABASE_URL)" in errors
    assert "secret" not in errors


async def test_a_killed_run_goes_on_and_threads_survive_kill_9_and_a_restart_of_the_database(
    data_dir: Path,
) -> None:
    async with gemini_server() as gemini:
        settings = {
            "GOOGLE_API_KEY": KEY,
            "GOOGLE_BASE_URL": gemini.url,
            "RUN_CLAIM_SECONDS": "2",
            **LOCAL_EMBEDDINGS,
        }
        gate = Gated(["Let me", " think."])
        search = ("search_knowledge_base", {"query": "export"})
        gemini.enqueue(
            Text(["Nice to meet", " you, Ana."]), FunctionCalls([search]), Structured(PROCEED), gate
        )
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            first = await _ask(http, "My name is Ana.")
            asking = asyncio.create_task(_ask(http, "Export fails.", "killed"))
            await gate.started.wait()
            service.send(signal.SIGKILL)
            assert await service.wait() == -signal.SIGKILL
            with pytest.raises(httpx.TransportError):
                await asking
        # The database was left running; the second service takes it over, and stops it.
        gemini.enqueue(Text(["Use the batch API."]), Text(["I am here."]), Text(["Your name is Ana."]))
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            output = await _ask(http, "Hello?", "killed")
            assert output["final_answer"] == "I am here."
            # The killed run went on from its last finished step, and answered before the next one began.
            assert [message["type"] for message in output["messages"]] == [
                "human",
                "ai",
                "tool",
                "ai",
                "human",
                "ai",
            ]
            assert "Use the batch API." in str(output["messages"][3])
            [last, killed] = (await http.get("/v1/runs", params={"thread_id": "killed"})).json()["runs"]
            assert (killed["status"], killed["attempt"]) == ("success", 2)
            assert (last["status"], last["attempt"]) == ("success", 1)
            second = await _ask(http, "What is my name?", first["thread_id"])
            assert second["final_answer"] == "Your name is Ana."
            service.send(signal.SIGINT)
            assert await service.wait() == 0
        gemini.enqueue(Text(["Still Ana."]))
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            third = await _ask(http, "And now?", first["thread_id"])
        turns = [turn[1] for turn in gemini.requests[-1].contents]
        notes = ("[Background", "[Iteration")
        assert [turn for turn in turns if not turn.startswith(notes)] == [
            "My name is Ana.",
            "Nice to meet you, Ana.",
            "What is my name?",
            "Your name is Ana.",
            "And now?",
        ]
        assert len(third["messages"]) == 6


async def test_sigterm_is_announced_lets_runs_finish_their_step_and_tells_clients_how_to_resume(
    data_dir: Path,
) -> None:
    async with gemini_server() as gemini:
        settings = {
            "GOOGLE_API_KEY": KEY,
            "GOOGLE_BASE_URL": gemini.url,
            **LOCAL_EMBEDDINGS,
            "RUN_FINISH_SECONDS": "0",
            "RUN_DRAIN_SECONDS": "60",
            "SHUTDOWN_NOTICE_SECONDS": "1",
        }
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            assert (await http.get("/health/ready")).status_code == 200
            asked, gates = [], []
            for way in ("invoke", "stream"):
                gates.append(held_reflection())
                gemini.enqueue(FunctionCalls([("search_knowledge_base", {"query": "export"})]), gates[-1])
                body = {"input": INPUT, "config": {"configurable": {"thread_id": way}}}
                asked.append(asyncio.create_task(http.post(f"/react/{way}", json=body)))
                await gates[-1].started.wait()
            service.send(signal.SIGTERM)
            # It still listens, so that whoever asks hears that it will not for long.
            while (ready := await http.get("/health/ready")).status_code == 200:
                pass
            assert (ready.status_code, ready.json()["error"]) == (503, "stopping")
            assert (await http.get("/health/live")).status_code == 200
            await _refuses_connections(service.url)
            for gate in gates:
                gate.release(2)
            invoked, streamed = await asyncio.gather(*asked)
            assert (invoked.status_code, invoked.json()["error"]) == (503, "run_stopped")
            assert "checkpoint is kept" in invoked.json()["message"]
            assert await service.wait() == 0
        name, _, last = streamed.text.strip().replace("\r", "").rpartition("event: ")[2].partition("\n")
        ended = json.loads(last.removeprefix("data: "))
        assert (name, ended["error"], ended["details"]["thread_id"]) == ("error", "run_stopped", "stream")

        # Both go on where they were stopped.
        gemini.enqueue(Text(["Use the batch API."]), Text(["Use the batch API."]))
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            resume = ended["details"]["resume"]
            resumed = await http.request(resume["method"], resume["path"], json=resume["body"])
            assert resumed.status_code == 200, resumed.text
            assert len(resumed.json()["output"]["messages"]) >= 4
            service.send(signal.SIGTERM)
            service.send(signal.SIGTERM)
            assert await service.wait() == 0


async def _ask(http: httpx.AsyncClient, task: str, thread_id: str | None = None) -> dict[str, Any]:
    config = {"configurable": {"thread_id": thread_id}} if thread_id else {}
    body = {"input": {"task": task, "contact_id": CONTACT}, "config": config}
    response = await http.post("/react/invoke", json=body)
    assert response.status_code == 200, response.text
    output: dict[str, Any] = response.json()["output"]
    return output


async def _refuses_connections(url: str) -> None:
    """Wait until the service has begun to stop."""
    host, port = url.removeprefix("http://").split(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionError:
            return
        writer.close()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
