"""What an operator reads of a running service: metrics, and the state of its agents."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from prometheus_client.parser import text_string_to_metric_families

from core.errors import ModelUnavailable
from service.cli.docs import PROJECT
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

MODEL = ScriptedChatModel()
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
async def running(shared_database_url: str) -> AsyncIterator[RunningService]:
    async with running_service(shared_database_url, scripted_models(MODEL)) as service:
        yield service


async def scraped(running: RunningService) -> Series:
    response = await running.http.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series.get((f"ventros_{name}", frozenset(labels.items())), 0.0)


async def test_a_run_with_a_tool_is_seen_in_every_instrument(running: RunningService) -> None:
    usage = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}
    search = ("search_knowledge_base", {"query": "export"})
    proceed = '{"success": true, "reasoning": "", "task_complete": false, "suggested_next_action": "answer"}'
    MODEL.replies = [
        calling("I look.", search, ("no_such_tool_of_ours", {})),
        proceed,
        AIMessage("Use batches.", usage_metadata=usage),
    ]
    before = await scraped(running)
    body = {"input": {"task": "Export fails.", "contact_id": CONTACT}}
    assert (await running.http.post("/react/invoke", json=body)).status_code == 200
    after = await scraped(running)

    def grew(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    route = {"route": "/react/invoke", "method": "POST"}
    assert grew("http_requests_total", **route, status="200") == 1
    assert grew("http_request_seconds_count", **route) == 1
    assert grew("runs_total", graph="react", outcome="finished") == 1
    assert grew("run_seconds_count", graph="react") == 1
    assert grew("run_first_token_seconds_count", graph="react") == 1
    assert grew("run_first_token_seconds_sum", graph="react") <= grew("run_seconds_sum", graph="react")
    assert grew("model_calls_total", model="scripted", outcome="answered") == 3
    assert grew("model_tokens_total", model="scripted", direction="input") == 11
    assert grew("model_tokens_total", model="scripted", direction="output") == 5
    assert grew("tool_calls_total", tool="search_knowledge_base", outcome="success") == 1
    assert grew("tool_calls_total", tool="unknown", outcome="unknown_tool") == 1
    assert grew("checkpoint_groups_total", outcome="committed") >= 5
    assert grew("checkpoint_rows_total") >= grew("checkpoint_writes_total") > 0
    assert value(after, "runs_in_progress", graph="react") == 0
    assert value(after, "runs_active") == value(after, "runs_queued") == 0
    assert 1 <= value(after, "pool_connections") <= value(after, "pool_connections_max") == 8


async def test_failures_are_counted_by_error_code(running: RunningService) -> None:
    MODEL.replies = [ConnectionError("away")] * 3
    body = {"input": {"task": "Hello", "contact_id": CONTACT}}
    assert (await running.http.post("/react/invoke", json=body)).status_code == 503
    series = await scraped(running)
    assert value(series, "runs_total", graph="react", outcome=ModelUnavailable.code) == 1
    assert value(series, "model_calls_total", model="scripted", outcome="unavailable") == 3


async def test_unknown_paths_share_one_series(running: RunningService) -> None:
    for number in range(3):
        await running.http.get(f"/no/such/place/{number}")
        await running.http.get(f"/v1/threads/{number}/nowhere")
    series = await scraped(running)
    assert value(series, "http_requests_total", route="unmatched", method="GET", status="404") == 6
    await running.http.post("/mcp", json={})
    assert (
        value(await scraped(running), "http_requests_total", route="/mcp", method="POST", status="400") == 1
    )
    assert await running.crm(f"/contacts/{CONTACT}")
    counted = [labels for name, labels in await scraped(running) if name == "ventros_http_requests_total"]
    routes = {dict(labels)["route"] for labels in counted}
    assert "/crm/contacts/{contact_id}" in routes
    assert CONTACT not in "".join(routes)


async def test_two_services_in_a_process_have_separate_metrics(
    running: RunningService, database_url: str
) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Hello.")])
    before = value(await scraped(running), "runs_total", graph="react", outcome="finished")
    async with running_service(database_url, scripted_models(model)) as other:
        await other.http.post("/react/invoke", json={"input": {"task": "Hello", "contact_id": CONTACT}})
        assert value(await scraped(other), "runs_total", graph="react", outcome="finished") == 1
    assert value(await scraped(running), "runs_total", graph="react", outcome="finished") == before


async def status(running: RunningService, agent_id: str) -> dict[str, Any]:
    response = await running.http.get(f"/v1/agents/{agent_id}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def ask(running: RunningService) -> int:
    body = {"input": {"prompt": "Write.", "contact_id": CONTACT}}
    return (await running.http.post("/critique_refine/invoke", json=body)).status_code


async def test_every_graph_and_every_agent_has_a_status(running: RunningService) -> None:
    listed = (await running.http.get("/v1/agents")).json()["agents"]
    info = (await running.http.get("/info")).json()
    assert [each["id"] for each in listed] == [
        *(f"graph:{name}" for name in info["graphs"]),
        *(f"agent:{name}" for name in info["agents"]),
    ]
    missing = await running.http.get("/v1/agents/nobody")
    assert (missing.status_code, missing.json()["error"]) == (404, "not_found")


async def test_a_developer_sees_what_a_graph_or_an_agent_can_do(running: RunningService) -> None:
    agent = (await status(running, "agent:billing_support"))["capabilities"]
    assert (agent["pattern"], agent["kind"], agent["model"]) == ("react", "model_driven", "scripted")
    assert "get_invoices" in agent["tools"]
    assert agent["limits"] == {"seconds": 120, "thoughts": 8, "super_steps": 210}
    graph = (await status(running, "graph:workflow"))["capabilities"]
    assert (graph["kind"], graph["tools"]) == ("workflow", [])
    assert graph["context_tokens"]["total"] == running.service.settings.context.tokens


async def test_a_graph_that_fails_repeatedly_is_degraded_until_it_answers(
    running: RunningService,
) -> None:
    fresh = await status(running, "graph:critique_refine")
    assert (fresh["state"], fresh["requests"], fresh["success_rate"]) == ("idle", 0, None)
    assert fresh["latency_seconds"] == {"p50": None, "p95": None, "p99": None}
    MODEL.replies = [ConnectionError("away")] * 15
    assert [await ask(running) for _ in range(5)] == [503] * 5
    failing = await status(running, "graph:critique_refine")
    assert (failing["state"], failing["health"], failing["failures_in_a_row"]) == ("degraded", "degraded", 5)
    assert (failing["requests"], failing["failed"], failing["success_rate"]) == (5, 5, 0.0)
    MODEL.replies = [AIMessage("Dear Ana, thank you.")] * 8
    assert await ask(running) == 200
    answering = await status(running, "graph:critique_refine")
    assert (answering["state"], answering["health"], answering["failures_in_a_row"]) == ("idle", "healthy", 0)
    assert answering["success_rate"] == pytest.approx(1 / 6)
    assert answering["latency_seconds"]["p50"] <= answering["latency_seconds"]["p99"]
    assert answering["uptime_seconds"] > 0


async def test_a_working_graph_is_active_and_busy_without_a_free_slot(running: RunningService) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await gate.wait()

    MODEL.before_token, MODEL.replies = wait, [AIMessage("Hello there.")]
    body = {"input": {"task": "Hello", "contact_id": CONTACT}}
    asking = asyncio.create_task(running.http.post("/react/invoke", json=body))
    await reached.wait()
    working = await status(running, "graph:react")
    assert (working["state"], working["in_progress"]) == ("active", 1)
    slots = running.service.runs.slots("runs")
    async with AsyncExitStack() as taken:
        for _ in range(slots.limit - 1):
            await taken.enter_async_context(slots.slot("default"))
        assert (await status(running, "graph:react"))["state"] == "busy"
        assert (await status(running, "graph:sales"))["state"] == "idle"
    MODEL.before_token = None
    gate.set()
    assert (await asking).status_code == 200
    assert (await status(running, "graph:react"))["state"] == "idle"


async def test_a_specialised_agent_has_its_own_numbers(running: RunningService) -> None:
    MODEL.replies = [AIMessage("Hello, Ana.")]
    answer = await running.http.post("/v1/messages", json={"contact_id": CONTACT, "message": "Good morning"})
    assert answer.json()["agent_used"] == "general"
    general = await status(running, "agent:general")
    assert (general["state"], general["requests"], general["success_rate"]) == ("idle", 1, 1.0)
    assert general["latency_seconds"]["p50"] > 0
    assert value(await scraped(running), "agent_attempts_total", agent="general", outcome="answered") == 1


async def test_every_metric_of_the_dashboard_exists(running: RunningService) -> None:
    dashboard = json.loads((PROJECT / "deploy/grafana/ventros-agents.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    named = {name for query in queries for name in re.findall(r"\b(?:ventros|process)_\w+", query)}
    # Counters and histograms without a series yet are told by their family's type.
    known = set()
    for family in text_string_to_metric_families((await running.http.get("/metrics")).text):
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        known |= {f"{family.name}{ending}" for ending in endings}
    assert len(named) >= 20
    assert named <= known
