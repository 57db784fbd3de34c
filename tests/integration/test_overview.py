"""What an operator reads of a period, whichever replica executed the runs."""

from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from tests.support.general_agent import PARROT, say, service
from tests.support.scripted import ScriptedChatModel


async def test_tokens_and_their_cost_are_those_that_providers_counted(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_PRICES", '{"scripted": [2.0, 10.0]}')
    usage = UsageMetadata(input_tokens=1_000, output_tokens=100, total_tokens=1_100)
    model = ScriptedChatModel(replies=[AIMessage("A green one.", usage_metadata=usage)])
    async with service(database_url, model) as running:
        await say(running, PARROT)
        await running.service.audit.flush()
        overview = (await running.http.get("/v1/overview")).raise_for_status().json()
        assert overview["models"] == [{"model": "scripted", "input": 1_000, "output": 100, "cost": 0.003}]
        assert overview["first_token"]["p50"] > 0
        assert [(part["graph"], part["runs"]) for part in overview["runs"]] == [("coordinator", 1)]


async def test_a_period_without_runs_is_empty_and_one_that_is_too_long_is_refused(database_url: str) -> None:
    async with service(database_url, ScriptedChatModel()) as running:
        until = datetime.now(UTC) - timedelta(days=300)
        since = until - timedelta(hours=1)
        period = {"since": since.isoformat(), "until": until.isoformat()}
        overview = (await running.http.get("/v1/overview", params=period)).raise_for_status().json()
        assert overview["conversations"]["opened"] == 0
        assert (overview["runs"], overview["models"]) == ([], [])
        assert overview["first_token"] == {"p50": None, "p95": None}
        long = {"since": since.isoformat(), "seconds": "60"}
        refused = await running.http.get("/v1/overview", params=long)
        assert refused.status_code == 422
        assert "raise seconds" in refused.json()["message"]
