"""What a salesperson notices who approves a discount after the service was killed and started again."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nodes.hierarchical.plan import Decision, Decomposition, PlannedSubtask
from nodes.sales.reading import DealReading
from tests.support.gemini import Structured, Text, gemini_server
from tests.support.process import LOCAL_EMBEDDINGS, client, end_left_behind, service_process
from tests.support.service import CONTACT

DEAL = f"/crm/api/v1/contacts/{CONTACT}/opportunities/OPP-3001"
KEY = {"Authorization": "Bearer development-key"}
TERMS = "Paid in advance, 10 % off: USD 9,720."


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_left_behind(tmp_path)


async def deal(http: httpx.AsyncClient) -> Any:
    return (await http.get(DEAL, headers=KEY)).raise_for_status().json()


async def test_a_discount_that_waits_survives_kill_9_and_is_recorded_once(data_dir: Path) -> None:
    async with gemini_server() as gemini:
        settings = {
            "GOOGLE_API_KEY": "AIza-not-a-real-key",
            "GOOGLE_BASE_URL": gemini.url,
            **LOCAL_EMBEDDINGS,
        }
        part = PlannedSubtask(number=1, agent="negotiation", task="Work out the terms.", depends_on=[])
        gemini.enqueue(
            Structured(Decomposition(why="Terms are due.", subtasks=[part])),
            Text([TERMS]),
            Structured(Decision(why="Known.", done=True, success=True, result="Terms.", subtasks=[])),
            Structured(DealReading(why="Asked.", terms=TERMS, value=9_720, discount_percent=10)),
        )
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            given = {"contact_id": CONTACT, "opportunity_id": "OPP-3001", "message": "10 % off, please."}
            begun = (await http.post("/sales/invoke", json={"input": given})).json()["output"]
            assert len(begun["interrupts"]) == 1
            before = await deal(http)
            service.send(signal.SIGKILL)
            await service.ended()
        async with service_process(data_dir, **settings) as service, client(service.url) as http:
            [approval] = (await http.get("/v1/approvals")).json()["approvals"]
            assert (approval["graph"], approval["value"]["arguments"]["terms"]) == ("sales", TERMS)
            assert await deal(http) == before
            path = f"/v1/approvals/{approval['id']}"
            decided = (await http.post(path, json={"decision": "approve"})).json()
            assert decided["output"]["deal_value"] == 9_720
            assert (await http.post(path, json={"decision": "approve"})).status_code == 409
            after = await deal(http)
            assert (after["terms"], after["version"]) == (TERMS, before["version"] + 1)
