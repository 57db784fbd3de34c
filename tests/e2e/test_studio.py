"""What a developer notices of ``make studio``."""

import asyncio
import signal
import socket
from pathlib import Path

import httpx
from langgraph_sdk import get_client

from graphs.registry import REGISTRY
from tests.support.process import launch
from tests.support.service import CONTACT, EXPORT_TASK


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def test_studio_lists_the_graphs_runs_one_and_shows_its_state(tmp_path: Path) -> None:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    process = await launch(tmp_path, "-m", "service.cli.studio", STUDIO_PORT=str(port))
    draining = asyncio.create_task(process.communicate())
    try:
        async with httpx.AsyncClient() as http:
            while not await _answers(http, f"{url}/ok"):
                assert not draining.done(), draining.result()
        client = get_client(url=url)
        found = await client.assistants.search(limit=100)
        assert {assistant["graph_id"] for assistant in found} == set(REGISTRY)
        thread = await client.threads.create()
        given = {"task": EXPORT_TASK, "contact_id": CONTACT}
        await client.runs.wait(thread["thread_id"], "react", input=given)
        state = await client.threads.get_state(thread["thread_id"])
        assert state["next"] == []
        values = state["values"]
        assert isinstance(values, dict)
        assert values["success"] is True
        assert values["messages"][-1]["type"] == "ai"
        # A graph that dispatches to others, with memory that says it is none.
        thread = await client.threads.create()
        asked = {"message": "Exporting my contacts ends with Error 500.", "contact_id": CONTACT}
        answered = await client.runs.wait(thread["thread_id"], "coordinator", input=asked)
        assert isinstance(answered, dict)
        assert (answered["agent_used"], answered["success"]) == ("technical_support", True)
        assert answered["session_id"] == thread["thread_id"]
        await client.aclose()
    finally:
        process.send_signal(signal.SIGINT)
        await draining


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False
