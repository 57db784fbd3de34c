"""Runs, with a graph's stream made up."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from service.runs.limits import build_queues
from service.runs.observers import RunObserver

from core.context import Context
from core.errors import RunTimedOut
from core.settings import RunSettings, WorkflowSettings
from service.audit.trail import AuditTrail
from service.auth.principal import LOCAL
from service.observability.metrics import ServiceMetrics
from service.observability.tracing import Tracing
from service.runs.executor import RunExecutor
from service.runs.request import QueueName, RunPart, RunRequest
from service.runs.start import RunStart
from tests.support.waiting import until


class Talkative(RunStart):
    """Streams that never end, and take a moment to be closed."""

    def __init__(self) -> None:
        self.open = 0

    async def parts(self, *_: Any) -> AsyncGenerator[RunPart, None]:
        return self._talk()

    async def _talk(self) -> AsyncGenerator[RunPart, None]:
        self.open += 1
        try:
            while True:
                yield {"type": "custom", "ns": (), "data": "more"}
        finally:
            await asyncio.sleep(0.01)
            self.open -= 1


def request(lane: QueueName) -> RunRequest:
    graph: Any = SimpleNamespace(name="talkative")
    return RunRequest(
        graph=graph,
        input={},
        identity=LOCAL,
        config={"configurable": {"thread_id": "t1"}},
        fresh=True,
        context=Context(),
        durability="async",
        modes=("custom",),
        lane=lane,
    )


async def test_a_run_out_of_time_whose_client_does_not_read_ends_its_step_before_its_thread_is_free() -> None:
    settings = RunSettings(timeout_seconds=0.2)
    start, lanes = Talkative(), build_queues(settings, WorkflowSettings(), shared=False)
    never_written: Any = None
    watch = RunObserver(ServiceMetrics(), Tracing(), AuditTrail(never_written))
    runs = RunExecutor(settings, lanes, start, watch, database_away=str)
    stream = runs.stream(request("runs"))
    await anext(stream)
    await until(lambda: not runs.is_busy("t1"))
    assert start.open == 0
    # Nor does the client's silence hold up the run.
    await until(lambda: not runs.active)
    with pytest.raises(RunTimedOut):
        async for _ in stream:
            pass


def test_a_run_of_a_workflow_is_nowhere_said_to_have_finished() -> None:
    never_written: Any = None
    audit, metrics = AuditTrail(never_written), ServiceMetrics()
    watch = RunObserver(metrics, Tracing(), audit)
    cases: list[tuple[QueueName, str, int]] = [("workflows", "advanced", 0), ("runs", "finished", 1)]
    for lane, outcome, notes in cases:
        with watch.over(request(lane)):
            pass
        labels = {"graph": "talkative", "outcome": outcome}
        assert metrics.registry.get_sample_value("ventros_runs_total", labels) == 1
        assert len(audit._notes) == notes
