"""Numbers that are asked for when somebody looks."""

from collections.abc import Mapping

from checkpoints.saver import GroupCommitSaver
from core.concurrency import FairSemaphore
from core.postgres import Pool
from service.observability.metrics import ServiceMetrics
from service.runs.executor import RunExecutor


def add_gauges(
    metrics: ServiceMetrics, *, runs: RunExecutor, pool: Pool, saver: GroupCommitSaver, steps: FairSemaphore
) -> None:
    """Show what the service's parts know of themselves; a line a number."""

    def pooled(name: str) -> float:
        stats: Mapping[str, int] = pool.get_stats()
        return stats.get(name, 0)

    metrics.gauge("runs_active", "Runs begun or waiting, of all graphs", lambda: runs.active)
    metrics.gauge("runs_queued", "Runs that wait for their thread or for a place", lambda: runs.queued)
    metrics.gauge("runs_places", "Runs that may be in progress at once", lambda: runs.slots("runs").limit)
    metrics.gauge("workflow_steps_active", "Working steps of workflows in progress", lambda: steps.active)
    metrics.gauge("workflow_steps_queued", "Of these, that wait for a place", lambda: steps.waiting)
    metrics.gauge("checkpoint_queue", "Writes that wait for a commit", lambda: saver.queued)
    metrics.gauge("pool_connections", "Connections open", lambda: pooled("pool_size"))
    metrics.gauge("pool_connections_idle", "Of these, not lent", lambda: pooled("pool_available"))
    metrics.gauge("pool_connections_most", "Connections that may be open", lambda: pool.max_size)
    metrics.gauge("pool_waiting", "Who waits for a connection", lambda: pooled("requests_waiting"))
