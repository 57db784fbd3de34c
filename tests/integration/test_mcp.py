"""What a client of the Model Context Protocol notices, with the protocol's own SDK."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from langchain_core.messages import AIMessage
from mcp import Client
from mcp.client.client import ConnectMode
from mcp.client.streamable_http import streamable_http_client

from core.settings import QueueSettings
from tests.integration.test_react_over_http import react_input
from tests.support.general_agent import OTHER, remembered, replying, service
from tests.support.identity import WITH_KEYS, key_of
from tests.support.scripted import ScriptedChatModel
from tests.support.service import CONTACT, RunningService

MESSAGE = {"message": "Do you sell parrots?", "contact_id": CONTACT}


@asynccontextmanager
async def connect(
    running: RunningService, *, mode: ConnectMode = "auto", **headers: str
) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(f"{running.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_agents_and_graphs_are_tools_that_answer(database_url: str, mode: ConnectMode) -> None:
    model = replying("We sell green ones.", "Yes, in green.", "Use batches.")
    async with service(database_url, model) as running, connect(running, mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"coordinator", "general", "billing_support", "react", "workflow"} <= tools.keys()
        # Their turns are a customer's replies.
        assert "sales" not in tools
        assert tools["general"].input_schema["required"] == ["message", "contact_id"]

        first = await client.call_tool("coordinator", MESSAGE)
        assert not first.is_error
        assert first.content[0].text == "We sell green ones."  # type: ignore[union-attr]
        again = {**MESSAGE, "session_id": first.structured_content["session_id"]}
        second = await client.call_tool("general", again)
        assert second.structured_content["dispatched"][0]["chosen"] == "caller"
        assert second.structured_content["session_id"] == first.structured_content["session_id"]
        graph = await client.call_tool("react", react_input())
        assert graph.structured_content["final_answer"] == "Use batches."
        kept = await remembered(running)
        assert ("agent", "Yes, in green.") in kept


async def test_a_mistake_is_a_result_that_the_clients_model_can_read(database_url: str) -> None:
    async with service(database_url, ScriptedChatModel()) as running, connect(running) as client:
        for tool, arguments, expected in (
            ("fly", {}, "not_found: there is no tool 'fly'"),
            ("general", {"message": "Hello"}, "contact_id: Field required"),
            ("react", {**react_input(), "model": "x"}, "'react' takes no such argument"),
            ("general", {**MESSAGE, "session_id": "a b"}, "thread_id"),
        ):
            refused = await client.call_tool(tool, arguments)
            assert refused.is_error
            assert expected in refused.content[0].text  # type: ignore[union-attr]
            assert set(refused.structured_content) == {"error", "message", "details"}


async def test_a_client_that_is_bound_to_a_contact_acts_for_no_other(database_url: str) -> None:
    headers = {"X-Contact-Id": CONTACT}
    async with (
        service(database_url, replying("Hello.")) as running,
        connect(running, **headers) as client,
    ):
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        for name in ("general", "react"):
            assert "contact_id" not in tools[name].input_schema["properties"]
        refused = await client.call_tool("general", {**MESSAGE, "contact_id": OTHER})
        assert refused.is_error
        assert not (await client.call_tool("general", {"message": "Hello"})).is_error
        assert await remembered(running, OTHER) == []
        assert ("agent", "Hello.") in await remembered(running)


async def test_a_client_needs_the_scope_and_sees_its_own_tenant_alone(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Hello."), AIMessage("Hello.")])
    async with service(database_url, model, auth=WITH_KEYS, queue=QueueSettings()) as running:
        acme = await key_of(running.service, "acme", "runs")
        rival = await key_of(running.service, "rival", "runs")
        async with connect(running, **acme) as client:
            mine = await client.call_tool("general", MESSAGE)
        async with connect(running, **rival) as client:
            taken = {**MESSAGE, "session_id": mine.structured_content["session_id"]}
            refused = await client.call_tool("general", taken)
            assert refused.structured_content["error"] == "not_found"
        auditor = await key_of(running.service, "acme", "audit")
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers, status in (({}, 401), (auditor, 403)):
            answer = await running.http.post("/mcp", json=body, headers=headers)
            assert answer.status_code == status
        for method in ("GET", "DELETE"):
            answer = await running.http.request(method, "/mcp", headers=acme)
            assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
