"""Gauges that are read from the service's parts at each scrape."""

from collections.abc import Mapping

from checkpoints.saver import GroupCommitSaver
from core.concurrency import FairSemaphore
from core.postgres import Pool
from service.observability.metrics import ServiceMetrics
from service.runs.executor import RunExecutor


def add_gauges(
    metrics: ServiceMetrics, *, runs: RunExecutor, pool: Pool, saver: GroupCommitSaver, steps: FairSemaphore
) -> None:
    """Add the gauges of the runs, the workflows, the checkpointer and the connection pool."""

    def read_pool(name: str) -> float:
        stats: Mapping[str, int] = pool.get_stats()
        return stats.get(name, 0)

    metrics.gauge("runs_active", "Runs of all graphs that execute or wait to", lambda: runs.active)
    metrics.gauge(
        "runs_queued", "Runs that wait for their thread or for a concurrency slot", lambda: runs.queued
    )
    metrics.gauge("runs_slots", "Concurrency slots of runs", lambda: runs.slots("runs").limit)
    metrics.gauge("workflow_steps_active", "Working steps of workflows in progress", lambda: steps.active)
    metrics.gauge(
        "workflow_steps_queued", "Working steps that wait for a concurrency slot", lambda: steps.waiting
    )
    metrics.gauge("checkpoint_queue", "Checkpoint writes that wait for a commit", lambda: saver.queued)
    metrics.gauge("pool_connections", "Open connections", lambda: read_pool("pool_size"))
    metrics.gauge(
        "pool_connections_idle", "Open connections that are not in use", lambda: read_pool("pool_available")
    )
    metrics.gauge("pool_connections_max", "Maximum number of open connections", lambda: pool.max_size)
    metrics.gauge("pool_waiting", "Callers that wait for a connection", lambda: read_pool("requests_waiting"))
