"""What a developer notices of ``make studio``: every graph runs in LangGraph's dev server."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from graphs.registry import REGISTRY
from tests.support.process import launch
from tests.support.service import CONTACT, EXPORT_TASK


@pytest.fixture(scope="module")
async def studio(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LangGraphClient]:
    """A client of a dev server with the graphs of langgraph.json and the offline model."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    folder = tmp_path_factory.mktemp("studio")
    process = await launch(folder, "-m", "service.cli.studio", STUDIO_PORT=str(port))
    draining = asyncio.create_task(process.communicate())
    try:
        async with httpx.AsyncClient() as http:
            while not await _answers(http, f"{url}/ok"):
                assert not draining.done(), draining.result()
        client = get_client(url=url)
        yield client
        await client.aclose()
    finally:
        process.send_signal(signal.SIGINT)
        await draining


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False


async def run(studio: LangGraphClient, graph: str, values: Any, thread_id: str = "") -> dict[str, Any]:
    thread_id = thread_id or (await studio.threads.create())["thread_id"]
    output = await studio.runs.wait(thread_id, graph, input=values)
    assert isinstance(output, dict)
    return output


async def test_studio_lists_every_graph(studio: LangGraphClient) -> None:
    assistants = await studio.assistants.search(limit=100)
    assert {assistant["graph_id"] for assistant in assistants} == set(REGISTRY)


@pytest.mark.parametrize("graph", REGISTRY)
async def test_the_example_of_a_graph_runs(studio: LangGraphClient, graph: str) -> None:
    thread = await studio.threads.create()
    output = await run(studio, graph, dict(REGISTRY[graph].example), thread["thread_id"])
    # Without a language model the voters of a consensus abstain, and it asks a person.
    abstains = graph == "consensus"
    assert output["messages"][-1]["type"] == ("human" if abstains else "ai")
    asks = REGISTRY[graph].asks == "customer" or abstains
    assert bool(output.get("__interrupt__")) == asks
    state = await studio.threads.get_state(thread["thread_id"])
    assert bool(state["next"]) == asks


async def test_the_state_of_a_run_can_be_read(studio: LangGraphClient) -> None:
    thread = await studio.threads.create()
    await run(studio, "react", {"task": EXPORT_TASK, "contact_id": CONTACT}, thread["thread_id"])
    state = await studio.threads.get_state(thread["thread_id"])
    assert state["next"] == []
    values = state["values"]
    assert isinstance(values, dict)
    assert values["success"] is True


async def test_a_run_does_not_see_the_input_of_the_last_one(studio: LangGraphClient) -> None:
    thread = await studio.threads.create()
    values = {"task": EXPORT_TASK, "contact_id": CONTACT}
    await run(studio, "react", {**values, "max_iterations": 1, "tools": ["get_contact"]}, thread["thread_id"])
    await run(studio, "react", values, thread["thread_id"])
    state = (await studio.threads.get_state(thread["thread_id"]))["values"]
    assert isinstance(state, dict)
    assert (state["max_iterations"], state["tools"]) == (10, [])


async def test_the_coordinator_dispatches_a_message_to_a_specialist(studio: LangGraphClient) -> None:
    thread = await studio.threads.create()
    message = {"message": "Exporting my contacts ends with Error 500.", "contact_id": CONTACT}
    output = await run(studio, "coordinator", message, thread["thread_id"])
    assert (output["agent_used"], output["success"]) == ("technical_support", True)
    assert output["session_id"] == thread["thread_id"]


def workflow(*steps: dict[str, Any], **definition: Any) -> dict[str, Any]:
    document = {"name": "a_test", "description": "Test.", "version": "1", "steps": steps, **definition}
    return {"definition": document}


async def test_the_steps_of_a_workflow_run(studio: LangGraphClient) -> None:
    output = await run(
        studio,
        "workflow",
        workflow(
            {"id": "messages", "type": "api_call", "url": f"crm:/messages?contact_id={CONTACT}&limit=5"},
            {
                "id": "case",
                "type": "agent",
                "graph": "react",
                "input": {"task": EXPORT_TASK, "contact_id": CONTACT},
            },
            result={
                "status": "{{ steps.messages.output.status }}",
                "solved": "{{ steps.case.output.success }}",
            },
        ),
    )
    assert (output["status"], output["error"]) == ("succeeded", "")
    assert output["result"] == {"status": 200, "solved": True}


async def test_a_step_that_needs_the_service_says_so(studio: LangGraphClient) -> None:
    query = {"id": "q", "type": "database_query", "connection": "crm", "sql": "SELECT 1"}
    output = await run(studio, "workflow", workflow(query))
    assert output["status"] == "failed"
    assert "Studio opens no databases" in output["error"]
    assert "/v1/workflows" in output["error"]
