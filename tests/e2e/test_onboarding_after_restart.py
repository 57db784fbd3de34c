"""What a customer notices who replies after the service was killed and started again."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.onboarding import AISHA
from tests.support.process import client, service_process, stop_orphaned_postgres


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop_orphaned_postgres(tmp_path)


async def turn(http: httpx.AsyncClient, given: dict[str, Any]) -> dict[str, Any]:
    body = {"input": given, "config": {"configurable": {"thread_id": "aisha"}}}
    output: dict[str, Any] = (await http.post("/onboarding/invoke", json=body)).json()["output"]
    return output


async def test_a_question_survives_kill_9_and_is_neither_lost_nor_asked_twice(data_dir: Path) -> None:
    async with service_process(data_dir) as service, client(service.url) as http:
        await turn(http, {"contact_id": AISHA})
        before = await turn(http, {"resume": {"reply": "about 12"}})
        assert before["interrupts"][0]["value"]["question"] == "industry"
        service.send(signal.SIGKILL)
        await service.wait()
    async with service_process(data_dir) as service, client(service.url) as http:
        after = await turn(http, {"resume": {"reply": "Private tutoring"}})
        assert after["interrupts"][0]["value"]["question"] == "use_case"
        assert after["profile"] == {**before["profile"], "industry": "Private tutoring"}
        said = [message["content"] for message in after["messages"]]
        assert said[: len(before["messages"])] == [message["content"] for message in before["messages"]]
        assert len(said) == len(before["messages"]) + 2
