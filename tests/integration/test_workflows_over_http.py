"""Workflows from the point of view of a client of ``/v1/workflows``."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from core.errors import Forbidden
from core.settings import QueueSettings, WorkflowSettings
from nodes.react.state import Reflection
from service.auth.principal import LOCAL
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service
from tests.support.waiting import until
from tests.support.workflow_server import CountingServer, counting_server

Json = dict[str, Any]
APPROVE = {"decision": "approve"}


@dataclass(frozen=True, slots=True)
class Client:
    """A client, the API that its workflows call, and the model of its agents."""

    running: RunningService
    server: CountingServer
    model: ScriptedChatModel

    @property
    def http(self) -> httpx.AsyncClient:
        return self.running.http

    def call(self, step_id: str, **fields: Any) -> Json:
        url = f"{self.server.url}/echo/{step_id}"
        return {"id": step_id, "type": "api_call", "url": url, "attempts": 1, **fields}

    async def run(self, *steps: Json, wait: bool = True, **fields: Any) -> Json:
        """Run these steps and return the run when it has ended or waits."""
        definition = {"name": "test", "steps": list(steps), **fields.pop("workflow", {})}
        return await self.post("", {"definition": definition, "wait": wait, **fields})

    async def post(self, path: str, body: Any = None) -> Json:
        answer: Json = (await self.http.post(f"/v1/workflows{path}", json=body)).raise_for_status().json()
        return answer

    async def get(self, run_id: str) -> Json:
        answer: Json = (await self.http.get(f"/v1/workflows/{run_id}")).raise_for_status().json()
        return answer

    async def until(self, run_id: str, *statuses: str) -> Json:
        """Return the run as soon as it has one of these statuses."""
        store, reached = self.running.service.workflows, ""
        while reached not in statuses:
            run = await store.worker.wait_until_settled("default", run_id, seconds=0.05)
            reached = run.status if run else "gone"
        return await self.get(run_id)

    async def approvals(self, run_id: str) -> list[Json]:
        listed = (await self.http.get("/v1/approvals")).raise_for_status().json()["approvals"]
        return [one for one in listed if one["thread_id"] == run_id]


@pytest.fixture(scope="module")
async def client(shared_database_url: str) -> AsyncIterator[Client]:
    model = ScriptedChatModel()
    async with counting_server() as server:
        settings = WorkflowSettings(allowed_hosts=server.host, sweep_seconds=0.05)
        async with running_service(
            shared_database_url, scripted_models(model), workflows=settings, queue=QueueSettings()
        ) as running:
            yield Client(running, server, model)


def states(report: Json) -> dict[str, str]:
    return {step["id"]: step["state"] for step in report["steps"]}


async def test_a_workflow_runs_and_returns_the_output_of_each_step(client: Client) -> None:
    count = {"id": "count", "type": "data_processing", "operation": "count", "source": "input.items"}
    report = await client.run(
        client.call("who", query={"n": "{{ input.items[0] }}"}),
        {
            "id": "both",
            "type": "parallel",
            "steps": [count, {"id": "later", "type": "wait", "duration_seconds": 0.05}],
        },
        workflow={
            "inputs": {"items": {"type": "array"}},
            "result": {"asked": "{{ steps.who.output.body.query }}", "items": "{{ steps.count.output }}"},
        },
        input={"items": [5, 6]},
    )
    report = await client.until(report["id"], "succeeded")
    assert (report["done"], report["total"]) == (3, 3)
    assert report["result"] == {"asked": "n=5", "items": 2}
    outputs = (await client.http.get(f"/v1/workflows/{report['id']}/outputs")).json()
    values = {one["key"]: one["output"] for one in outputs["outputs"]}
    assert (values["count"], values["later"]["waited_seconds"] >= 0.05) == (2, True)
    diagram = (await client.http.get(f"/v1/workflows/{report['id']}/diagram")).text
    assert diagram.startswith("flowchart TD")
    assert ":::succeeded" in diagram


async def test_a_repeated_client_id_returns_the_first_run(client: Client) -> None:
    first = await client.run(client.call("once"), client_id="mine", wait=False)
    repeated = await client.run(client.call("another"), client_id="mine")
    assert (repeated["id"], repeated["status"], repeated["client_id"]) == (first["id"], "succeeded", "mine")
    assert client.server.calls[f"{first['id']}:once"] == 1
    assert [step["id"] for step in repeated["steps"]] == ["once"]


async def test_every_fault_of_a_definition_is_reported_with_step_and_field(client: Client) -> None:
    broken = {
        "name": "broken",
        "steps": [
            {"id": "a", "type": "api_call", "url": "ftp://x"},
            {"id": "b", "type": "data_processing", "operation": "filter", "source": "steps.nowhere.output"},
            {"id": "c", "type": "wait", "duration_seconds": 1, "signal": "x"},
        ],
    }
    rejected = await client.http.post("/v1/workflows", json={"definition": broken})
    validated = (await client.http.post("/v1/workflows/validate", json={"definition": broken})).json()
    assert rejected.status_code == 422
    assert validated["valid"] is False
    assert validated["faults"] == rejected.json()["details"]["faults"]
    assert {fault["step"] for fault in validated["faults"]} == {"a", "b", "c"}
    unknown = {"name": "x", "steps": [{"id": "a", "type": "agent", "graph": "nobody"}]}
    [fault] = (await client.http.post("/v1/workflows/validate", json={"definition": unknown})).json()[
        "faults"
    ]
    assert (fault["step"], fault["field"]) == ("a", "graph")
    assert "react" in fault["message"]


@pytest.mark.parametrize("value", [2**70, ["x" * 1_000_001], "\0", {"a": [-(2**63)]}])
async def test_values_that_cannot_be_stored_are_rejected(client: Client, value: Any) -> None:
    definition = {"name": "test", "inputs": {"x": {"type": "object"}}, "steps": [client.call("a")]}
    body = {"definition": definition, "input": {"x": {"y": value}}}
    assert (await client.http.post("/v1/workflows", json=body)).status_code == 422
    sent = await client.http.post("/v1/workflows/none/signals/x", json={"payload": value})
    assert sent.status_code == 422


async def test_the_schema_and_the_library_are_published(client: Client) -> None:
    schema = (await client.http.get("/v1/workflows/schema")).json()
    assert {"ApiCall", "DatabaseQuery", "DataProcessing", "AgentCall", "Wait", "Approval"} <= schema[
        "$defs"
    ].keys()
    for one in (await client.http.get("/v1/workflows/library")).json()["workflows"]:
        valid = await client.http.post("/v1/workflows/validate", json={"definition": one["definition"]})
        assert valid.json() == {"valid": True, "faults": []}


async def test_a_signal_reaches_the_wait_of_its_name_even_if_it_comes_first(client: Client) -> None:
    report = await client.run(
        {"id": "paid", "type": "wait", "signal": "paid"},
        {"id": "sent", "type": "wait", "signal": "sent"},
        workflow={"result": ["{{ steps.paid.output }}", "{{ steps.sent.output }}"]},
    )
    assert report["status"] == "waiting"
    assert [(one["kind"], one["signal"]) for one in report["waiting_for"]] == [("signal", "paid")]
    await client.post(f"/{report['id']}/signals/sent", {"payload": {"by": "post"}})
    await client.post(f"/{report['id']}/signals/paid", {"payload": 12})
    assert (await client.until(report["id"], "succeeded"))["result"] == [12, {"by": "post"}]
    late = await client.http.post(f"/v1/workflows/{report['id']}/signals/paid")
    assert late.status_code == 409


async def test_a_wait_whose_signal_does_not_come_in_time_fails(client: Client) -> None:
    step = {"id": "paid", "type": "wait", "signal": "paid", "within_seconds": 0.05, "on_error": "skip"}
    report = await client.run(step, client.call("remind"))
    report = await client.until(report["id"], "succeeded")
    assert states(report) == {"paid": "skipped", "remind": "succeeded"}


async def test_a_workflow_continues_after_a_decision_at_v1_approvals(client: Client) -> None:
    report = await client.run(
        {"id": "ask", "type": "approval", "question": "Refund {{ input.amount }}?", "details": {"n": 1}},
        client.call("refund"),
        workflow={"inputs": {"amount": {"type": "integer"}}},
        input={"amount": 7},
    )
    [question] = await client.approvals(report["id"])
    assert (question["graph"], question["value"]["question"]) == ("workflows", "Refund 7?")
    assert report["waiting_for"][0]["approval_id"] == question["id"]
    path = f"/v1/approvals/{question['id']}"
    assert (await client.http.post(path, json={"decision": "perhaps"})).status_code == 422
    decided = (await client.http.post(path, json=APPROVE)).raise_for_status().json()
    assert (decided["output"]["status"], states(decided["output"])["refund"]) == ("succeeded", "succeeded")
    assert (await client.http.post(path, json=APPROVE)).status_code == 409
    assert await client.approvals(report["id"]) == []


async def test_the_question_of_an_agent_step_is_answered_like_any_other(client: Client) -> None:
    done = Reflection(success=True, reasoning="Told.", task_complete=True, final_answer="I told them.")
    send = ("send_solution_to_customer", {"solution": "We will refund the last invoice."})
    client.model.replies[:] = [calling("I refund.", send), done]
    step = {
        "id": "agent",
        "type": "agent",
        "graph": "react",
        "input": {"task": "{{ input.task }}", "contact_id": CONTACT},
    }
    report = await client.run(
        step,
        workflow={"inputs": {"task": {"type": "string"}}, "result": "{{ steps.agent.output.final_answer }}"},
        input={"task": "Make it right."},
    )
    [question] = await client.approvals(report["id"])
    assert question["value"]["tool"] == "send_solution_to_customer"
    decided = (
        (await client.http.post(f"/v1/approvals/{question['id']}", json=APPROVE)).raise_for_status().json()
    )
    assert (decided["output"]["status"], decided["output"]["result"]) == ("succeeded", "I told them.")


async def test_a_recovered_workflow_does_not_repeat_finished_steps(client: Client) -> None:
    client.server.refuse.add(":charge")
    report = await client.run(client.call("first"), client.call("charge"), client.call("last"))
    assert (report["status"], states(report)["charge"]) == ("failed", "failed")
    assert "answered with 404" in report["error"]["message"]
    run_id = report["id"]
    repeated = await client.post(f"/{run_id}/recover", {"strategy": "retry"})
    assert repeated["steps"] == ["charge"]
    assert (await client.until(run_id, "failed"))["status"] == "failed"
    client.server.refuse.clear()
    await client.post(f"/{run_id}/recover", {"strategy": "retry"})
    report = await client.until(run_id, "succeeded")
    assert (report["error"], states(report)["last"]) == (None, "succeeded")
    calls = {name: client.server.calls[f"{run_id}:{name}"] for name in ("first", "charge", "last")}
    assert calls == {"first": 1, "charge": 3, "last": 1}
    nothing = await client.http.post(f"/v1/workflows/{run_id}/recover", json={"strategy": "retry"})
    assert (nothing.status_code, (await client.get(run_id))["status"]) == (409, "succeeded")

    history = (await client.http.get(f"/v1/workflows/{run_id}/checkpoints")).json()["checkpoints"]
    [before] = [one["checkpoint_id"] for one in history if one["next"] == ["last"]][:1]
    back = {"strategy": "rollback_to_checkpoint", "checkpoint_id": before}
    await client.post(f"/{run_id}/recover", back)
    await client.until(run_id, "succeeded")
    assert client.server.calls[f"{run_id}:last"] == 2
    for wrong in (
        {**back, "checkpoint_id": "1f1e635e-e182-6292-8005-143b7e55c641"},
        {"strategy": "retry", "checkpoint_id": "x"},
    ):
        rejected = await client.http.post(f"/v1/workflows/{run_id}/recover", json=wrong)
        assert rejected.status_code in {404, 422}


async def test_a_workflow_continues_without_its_failed_step(client: Client) -> None:
    client.server.refuse.add(":optional")
    report = await client.run(client.call("optional"), client.call("last"))
    await client.post(f"/{report['id']}/recover", {"strategy": "skip_failed_step"})
    report = await client.until(report["id"], "succeeded")
    client.server.refuse.clear()
    assert states(report) == {"optional": "skipped", "last": "succeeded"}


async def test_a_cancelled_workflow_stops_at_its_next_step_and_withdraws_its_question(client: Client) -> None:
    client.server.hold.add(":held")
    running = await client.run(client.call("held"), client.call("never"), wait=False)
    await until(lambda: client.server.calls[f"{running['id']}:held"])
    busy = await client.http.post(f"/v1/workflows/{running['id']}/recover", json={"strategy": "retry"})
    await client.post(f"/{running['id']}/cancel")
    client.server.hold.clear()
    report = await client.until(running["id"], "cancelled")
    assert (busy.status_code, states(report)) == (409, {"held": "succeeded", "never": "pending"})

    waiting = await client.run({"id": "ask", "type": "approval", "question": "?"})
    [question] = await client.approvals(waiting["id"])
    assert (await client.post(f"/{waiting['id']}/cancel"))["status"] == "cancelled"
    assert await client.approvals(waiting["id"]) == []
    assert (await client.http.post(f"/v1/approvals/{question['id']}", json=APPROVE)).status_code == 409
    assert (await client.http.post(f"/v1/workflows/{waiting['id']}/cancel")).status_code == 409
    await client.post(f"/{running['id']}/recover", {"strategy": "retry"})
    assert (await client.until(running["id"], "succeeded"))["done"] == 2


async def test_the_event_stream_continues_where_a_client_disconnected(client: Client) -> None:
    client.server.hold.add(":second")
    started = await client.run(client.call("first"), client.call("second"), wait=False)
    path = f"/v1/workflows/{started['id']}/events"
    seen: list[tuple[str, Json, str]] = []
    async with client.http.stream("GET", path) as stream:
        async for event in _events(stream):
            seen.append(event)
            if (event[1].get("id"), event[1].get("state")) == ("first", "succeeded"):
                break
    client.server.hold.clear()
    async with client.http.stream("GET", path, headers={"Last-Event-ID": seen[-1][2]}) as stream:
        rest = [event async for event in _events(stream)]
    assert {event[1]["id"] for event in rest if event[0] == "step"} == {"second"}
    assert (rest[-1][0], rest[-1][1]["status"], rest[-1][1]["done"]) == ("done", "succeeded", 2)


async def _events(stream: httpx.Response) -> AsyncIterator[tuple[str, Json, str]]:
    event = {"id": ""}
    async for line in stream.aiter_lines():
        name, _, value = line.partition(": ")
        if name in {"event", "data", "id"}:
            event[name] = value
        elif not line and "event" in event:
            yield event["event"], json.loads(event["data"]), event["id"]
            event = {"id": ""}


async def test_the_workflow_of_another_tenant_is_not_found(client: Client) -> None:
    report = await client.run({"id": "ask", "type": "approval", "question": "?"})
    [question] = await client.approvals(report["id"])
    async with client.running.service.pool.connection() as connection:
        await connection.execute("UPDATE workflows.runs SET tenant = 'other' WHERE id = %s", (report["id"],))
    paths = ["", "/outputs", "/diagram", "/events", "/checkpoints"]
    answers = [await client.http.get(f"/v1/workflows/{report['id']}{path}") for path in paths]
    answers += [
        await client.http.post(f"/v1/workflows/{report['id']}/{path}", json=body)
        for path, body in (("cancel", None), ("signals/x", None), ("recover", {"strategy": "retry"}))
    ]
    assert [answer.status_code for answer in answers] == [404] * 8
    assert await client.approvals(report["id"]) == []
    assert (await client.http.post(f"/v1/approvals/{question['id']}", json=APPROVE)).status_code == 409
    listed = (await client.http.get("/v1/workflows?limit=500")).json()["workflows"]
    assert report["id"] not in {one["id"] for one in listed}


async def test_a_workflow_can_be_erased_unless_it_is_running(client: Client) -> None:
    client.server.hold.add(":erased")
    started = await client.run(client.call("erased"), wait=False)
    await until(lambda: client.server.calls[f"{started['id']}:erased"])
    path = f"/v1/threads/{started['id']}"
    assert (await client.http.delete(path)).status_code == 409
    client.server.hold.clear()
    await client.until(started["id"], "succeeded")
    assert (await client.http.delete(path)).status_code == 204
    assert (await client.http.get(f"/v1/workflows/{started['id']}")).status_code == 404
    assert (await client.http.delete(path)).status_code == 404


async def test_the_list_of_workflows_includes_the_queue(client: Client) -> None:
    report = await client.run(client.call("listed"), workflow={"name": "listed_one"})
    listed = (await client.http.get("/v1/workflows?name=listed_one&status=succeeded")).json()
    assert [one["id"] for one in listed["workflows"]] == [report["id"]]
    assert listed["queue"]["max_concurrent_steps"] == 100
    assert listed["queue"]["active_steps"] == 0


async def test_the_list_of_approvals_skips_threads_without_questions(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.routes.approvals._PAGE", 2)
    started = [await client.run({"id": "s", "type": "wait", "signal": "s"}) for _ in range(3)]
    ask = {"id": "ask", "type": "approval", "question": "?"}
    started += [broken := await client.run(ask), asks := await client.run(ask)]
    pool = client.running.service.pool
    async with pool.connection() as connection:
        await connection.execute("UPDATE workflows.runs SET definition = '{}' WHERE id = %s", (broken["id"],))
    first = (await client.http.get("/v1/approvals", params={"limit": 1})).raise_for_status().json()
    then = {"limit": 1, "after": first["next"]}
    rest = (await client.http.get("/v1/approvals", params=then)).raise_for_status().json()
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE workflows.runs SET status = 'cancelled', ended_at = now() WHERE id = ANY(%s)",
            ([one["id"] for one in started],),
        )
    assert [one["thread_id"] for one in first["approvals"]] == [asks["id"]]
    assert rest == {"approvals": [], "next": None}


async def test_the_priority_of_a_run_applies_to_its_steps(client: Client) -> None:
    report = await client.run(client.call("a"), priority=7, workflow={"priority": 2})
    run = await client.running.service.workflows.store.get("default", report["id"])
    assert run is not None
    assert (run.priority, run.definition["priority"]) == (7, 7)


async def test_skipping_a_rejection_needs_the_approvals_scope(client: Client) -> None:
    report = await client.run({"id": "ask", "type": "approval", "question": "?"}, client.call("refund"))
    [question] = await client.approvals(report["id"])
    rejected = {"decision": "reject", "reason": "no"}
    (await client.http.post(f"/v1/approvals/{question['id']}", json=rejected)).raise_for_status()
    identity = replace(LOCAL, scopes=frozenset({"runs"}))
    with pytest.raises(Forbidden, match="approvals"):
        await client.running.service.workflows.recover(identity, report["id"], "skip_failed_step")
    assert (await client.get(report["id"]))["status"] == "failed"
    await client.post(f"/{report['id']}/recover", {"strategy": "skip_failed_step"})
    assert states(await client.until(report["id"], "succeeded"))["refund"] == "succeeded"
