"""What a person notices who approves after the service was killed and started again."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gemini import FunctionCalls, Structured, gemini_server
from tests.support.process import LOCAL_EMBEDDINGS, client, end_left_behind, service_process
from tests.support.service import CONTACT

# Of a severity that a person has to approve.
TICKET = {"title": "Exports fail", "description": "Error 500 on every export.", "severity": "critical"}
DONE = {"success": True, "reasoning": "Sent.", "task_complete": True, "final_answer": "It is sent."}


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_left_behind(tmp_path)


async def test_a_pending_approval_survives_kill_9_and_is_carried_out_once(data_dir: Path) -> None:
    async with gemini_server() as gemini:
        settings = {
            "GOOGLE_API_KEY": "AIza-not-a-real-key",
            "GOOGLE_BASE_URL": gemini.url,
            **LOCAL_EMBEDDINGS,
        }
        gemini.enqueue(FunctionCalls([("create_engineering_ticket", TICKET)]))
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            body = {
                "contact_id": CONTACT,
                "message": "Exporting my contacts ends with Error 500.",
                "session_id": "refund",
            }
            answer = (await http.post("/v1/messages", json=body)).json()
            assert len(answer["interrupts"]) == 1
            service.send(signal.SIGKILL)
            await service.ended()
        gemini.enqueue(Structured(DONE))
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            [approval] = (await http.get("/v1/approvals")).json()["approvals"]
            path = f"/v1/approvals/{approval['id']}"
            decided: dict[str, Any] = (await http.post(path, json={"decision": "approve"})).json()
            assert decided["output"]["response"] == "It is sent."
            assert (await http.post(path, json={"decision": "approve"})).status_code == 409
            key = {"Authorization": "Bearer development-key"}
            held = (await http.get("/crm/api/v1/engineering-tickets", headers=key)).json()
            titles = [ticket["title"] for ticket in held["engineering_tickets"]]
            assert titles.count(TICKET["title"]) == 1
