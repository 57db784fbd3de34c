"""What people notice who decide after the service was killed and started again."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nodes.hierarchical.plan import Decision, Decomposition, PlannedSubtask
from nodes.sales.state import DealReading
from tests.support.gemini import FunctionCalls, GeminiServer, Structured, Text, gemini_server
from tests.support.process import LOCAL_EMBEDDINGS, client, service_process, stop_orphaned_postgres
from tests.support.service import CONTACT

# Of a severity that a person has to approve.
TICKET = {"title": "Exports fail", "description": "Error 500 on every export.", "severity": "critical"}
DONE = {"success": True, "reasoning": "Sent.", "task_complete": True, "final_answer": "It is sent."}
TERMS = "Paid in advance, 10 % off: USD 9,720."
KEY = {"Authorization": "Bearer development-key"}


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop_orphaned_postgres(tmp_path)


async def crm(http: httpx.AsyncClient, path: str) -> Any:
    return (await http.get(f"/crm/api/v1{path}", headers=KEY)).raise_for_status().json()


async def deal(http: httpx.AsyncClient) -> Any:
    return await crm(http, f"/contacts/{CONTACT}/opportunities/OPP-3001")


async def ask_for_a_ticket(http: httpx.AsyncClient, gemini: GeminiServer) -> None:
    gemini.enqueue(FunctionCalls([("create_engineering_ticket", TICKET)]))
    body = {"contact_id": CONTACT, "message": "Exporting my contacts ends with Error 500."}
    answer = (await http.post("/v1/messages", json=body)).json()
    assert len(answer["interrupts"]) == 1


async def ask_for_a_discount(http: httpx.AsyncClient, gemini: GeminiServer) -> None:
    part = PlannedSubtask(number=1, agent="negotiation", task="Work out the terms.", depends_on=[])
    gemini.enqueue(
        Structured(Decomposition(why="Terms are due.", subtasks=[part])),
        Text([TERMS]),
        Structured(Decision(why="Known.", done=True, success=True, result="Terms.", subtasks=[])),
        Structured(DealReading(why="Asked.", terms=TERMS, value=9_720, discount_percent=10)),
    )
    given = {"contact_id": CONTACT, "opportunity_id": "OPP-3001", "message": "10 % off, please."}
    begun = (await http.post("/sales/invoke", json={"input": given})).json()["output"]
    assert len(begun["interrupts"]) == 1


async def approved(http: httpx.AsyncClient, approval: dict[str, Any]) -> Any:
    path = f"/v1/approvals/{approval['id']}"
    decided = (await http.post(path, json={"decision": "approve"})).json()
    assert (await http.post(path, json={"decision": "approve"})).status_code == 409
    return decided["output"]


async def test_what_waits_for_a_person_survives_kill_9_and_is_carried_out_once(data_dir: Path) -> None:
    async with gemini_server() as gemini:
        settings = {
            "GOOGLE_API_KEY": "AIza-not-a-real-key",
            "GOOGLE_BASE_URL": gemini.url,
            **LOCAL_EMBEDDINGS,
        }
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            await ask_for_a_ticket(http, gemini)
            await ask_for_a_discount(http, gemini)
            before = await deal(http)
            service.send(signal.SIGKILL)
            await service.wait()
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            waiting = (await http.get("/v1/approvals")).json()["approvals"]
            by_graph = {approval["graph"]: approval for approval in waiting}

            gemini.enqueue(Structured(DONE))
            assert (await approved(http, by_graph["coordinator"]))["response"] == "It is sent."
            tickets = (await crm(http, "/engineering-tickets"))["engineering_tickets"]
            assert [ticket["title"] for ticket in tickets].count(TICKET["title"]) == 1

            assert by_graph["sales"]["value"]["arguments"]["terms"] == TERMS
            assert await deal(http) == before
            assert (await approved(http, by_graph["sales"]))["deal_value"] == 9_720
            after = await deal(http)
            assert (after["terms"], after["version"]) == (TERMS, before["version"] + 1)
