"""Runs without a service around them."""

from core.postgres import Pool
from core.settings import RunSettings, WorkflowSettings
from service.audit.trail import AuditTrail
from service.observability.metrics import ServiceMetrics
from service.observability.tracing import Tracing
from service.runs.executor import Runs
from service.runs.ownership import Ownership
from service.runs.queues import run_lanes
from service.runs.start import RunStart
from service.runs.watch import RunWatch


def runs_on(
    pool: Pool, settings: RunSettings | None = None, workflows: WorkflowSettings | None = None
) -> Runs:
    """Runs of one tenant; the limits are the defaults where none are given."""
    settings = settings or RunSettings()
    lanes = run_lanes(settings, workflows or WorkflowSettings(), shared=False)
    audit = AuditTrail(pool)
    watch = RunWatch(ServiceMetrics(), Tracing(), audit)
    return Runs(settings, lanes, RunStart(Ownership(pool), audit), watch, database_away=str)
