"""What every caller notices: health, info, documents, ids, unknown paths."""

import asyncio
import re

from syrupy.assertion import SnapshotAssertion

from core.settings import MemorySettings, QueueSettings
from graphs.registry import REGISTRY
from service.app import create_app
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import running_service


async def test_health_info_docs_and_the_development_crm_are_there(database_url: str) -> None:
    models = scripted_models(ScriptedChatModel())
    async with running_service(database_url, models, queue=QueueSettings()) as running:
        health = await running.http.get("/health")
        tasks = health.json().pop("tasks")
        assert {
            "database-watch",
            "queue-ticks",
            "queue-upkeep",
            "queue-worker",
            "audit-writer",
        } <= set(tasks)
        running_task = {"state": "running", "restarts": 0, "last_error": ""}
        assert all(task == running_task for task in tasks.values())
        assert (health.status_code, {**health.json(), "tasks": {}}) == (
            200,
            {
                "status": "healthy",
                "checks": {"database": "up", "writes": "up", "memory": "up", "embeddings": "up"},
                "faults": {},
                "circuits": {"crm": "closed"},
                "agents": {"degraded": []},
                "tasks": {},
            },
        )
        info = (await running.http.get("/info")).json()
        assert info["version"] == "0.2.0"
        assert list(info["graphs"]) == list(REGISTRY)
        assert info["model"]["model"] == "scripted"
        assert info["crm"] == "development CRM, at /crm"
        assert (await running.http.get("/docs")).status_code == 200
        assert (await running.http.get("/crm/docs")).status_code == 200
        assert (await running.crm("/status"))["status"] == "operational"


async def test_a_background_task_that_dies_is_reported_and_restarted(database_url: str) -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    async with (
        running_service(database_url, scripted_models(ScriptedChatModel())) as running,
        running.service.tasks.supervise("broken", fail),
    ):
        await asyncio.sleep(0)
        health = await running.http.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        task = health.json()["tasks"]["broken"]
        assert (task["state"], task["last_error"]) == ("restarting", "RuntimeError")


async def test_every_response_has_a_request_id_the_callers_if_it_sent_one(database_url: str) -> None:
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        made = (await running.http.get("/info")).headers["X-Request-Id"]
        assert re.fullmatch(r"[0-9a-f-]{36}", made)
        kept = await running.http.get("/info", headers={"X-Request-Id": "crm-42"})
        assert kept.headers["X-Request-Id"] == "crm-42"
        forged = await running.http.get("/info", headers={"X-Request-Id": "a b\tc"})
        assert forged.headers["X-Request-Id"] != "a b\tc"
        missing = await running.http.get("/nowhere")
        assert missing.headers["X-Request-Id"]


async def test_unknown_paths_and_methods_are_typed_errors(database_url: str) -> None:
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        missing = await running.http.get("/nowhere")
        assert (missing.status_code, missing.json()["error"]) == (404, "not_found")
        wrong = await running.http.get("/react/invoke")
        assert (wrong.status_code, wrong.json()["error"]) == (405, "method_not_allowed")
        assert missing.json()["message"] == "there is nothing at '/nowhere'; /docs lists all routes"
        assert wrong.json()["message"] == "'/react/invoke' does not take GET, but POST"
        assert set(missing.json()) == set(wrong.json()) == {"error", "message", "details"}


async def test_a_body_that_cannot_be_read_is_explained(database_url: str) -> None:
    bodies = {
        "{bad": "body: it is not valid JSON, at character 1",
        "[]": "body: it must be a JSON object, sent with Content-Type: application/json",
        '{"contact_id": 3, "message": "x"}': "body.contact_id: Input should be a valid string",
    }
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        for body, message in bodies.items():
            headers = {"Content-Type": "application/json"}
            refused = await running.http.post("/v1/messages", content=body, headers=headers)
            assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
            assert refused.json()["message"].startswith(message)


def test_the_openapi_document_changes_only_on_purpose(snapshot: SnapshotAssertion) -> None:
    document = create_app().openapi()
    document["info"].pop("version")
    assert {path: sorted(methods) for path, methods in document["paths"].items()} == snapshot
    assert document["components"]["schemas"]["MessageResponse"] == snapshot
    assert document["components"]["schemas"]["MessageRequest"] == snapshot


async def test_a_memory_that_cannot_be_reached_is_reported(database_url: str) -> None:
    memory = MemorySettings(grpc_target="127.0.0.1:1")
    async with running_service(database_url, scripted_models(ScriptedChatModel()), memory=memory) as running:
        health = await running.http.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["checks"]["memory"] == "down"
    assert health.json()["faults"]["memory"]
