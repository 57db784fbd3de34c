"""Runs of a graph whose stream is made up."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from core.context import Context
from core.errors import RunTimedOut
from core.postgres import Pool
from core.settings import RunSettings
from service.audit.trail import AuditTrail
from service.auth.principal import LOCAL
from service.observability.metrics import ServiceMetrics
from service.observability.tracing import Tracing
from service.runs.observers import RunObserver
from service.runs.request import QueueName, RunPart, RunRequest
from tests.support.audit import fetch_rows
from tests.support.runs import build_executor
from tests.support.waiting import until


class EndlessGraph:
    """A graph whose stream never ends, and takes a moment to close."""

    name = "endless"
    output_channels = ()

    def __init__(self) -> None:
        self.open_streams = 0

    async def astream(self, *_: Any, **__: Any) -> AsyncGenerator[RunPart, None]:
        self.open_streams += 1
        try:
            while True:
                yield {"type": "custom", "ns": (), "data": "more"}
        finally:
            await asyncio.sleep(0.01)
            self.open_streams -= 1


def build_request(graph: Any, queue: QueueName = "runs") -> RunRequest:
    return RunRequest(
        graph=graph,
        input={},
        identity=LOCAL,
        config={"configurable": {"thread_id": "t1"}},
        fresh=True,
        context=Context(),
        durability="async",
        modes=("custom",),
        queue=queue,
    )


async def is_idle(pool: Pool, thread_id: str) -> bool:
    """Return whether a thread that has had a run has none in progress."""
    sql = "SELECT count(*) = count(ended_at) AS idle FROM runs.runs WHERE thread_id = %s HAVING count(*) > 0"
    return any(row["idle"] for row in await fetch_rows(pool, sql, thread_id))


async def test_a_timed_out_run_with_a_stalled_client_ends_its_step_before_it_releases_its_thread(
    pool: Pool,
) -> None:
    graph = EndlessGraph()
    runs = build_executor(pool, RunSettings(timeout_seconds=0.2))
    async with runs.stream(build_request(graph)) as parts:
        await anext(parts)
        while not await is_idle(pool, "t1"):  # noqa: ASYNC110 - it watches a row
            await asyncio.sleep(0.001)
        assert graph.open_streams == 0
        # The stalled client does not hold up the run either.
        await until(lambda: not runs.active)
        with pytest.raises(RunTimedOut):
            async for _ in parts:
                pass


@pytest.mark.parametrize(("queue", "counted"), [("workflows", None), ("runs", 1)])
def test_a_run_that_is_a_part_of_a_workflow_is_neither_counted_nor_audited(
    queue: QueueName, counted: int | None
) -> None:
    no_pool: Any = None
    audit, metrics = AuditTrail(no_pool), ServiceMetrics()
    with RunObserver(metrics, Tracing(), audit).observe(build_request(EndlessGraph(), queue)):
        pass
    labels = {"graph": "endless", "outcome": "finished"}
    assert metrics.registry.get_sample_value("ventros_runs_total", labels) == counted
    assert len(audit._notes) == (counted or 0)
