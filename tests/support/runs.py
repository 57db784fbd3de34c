"""Runs without a service around them."""

from service.runs.limits import build_queues
from service.runs.observers import RunObserver

from core.postgres import Pool
from core.settings import RunSettings, WorkflowSettings
from service.audit.trail import AuditTrail
from service.observability.metrics import ServiceMetrics
from service.observability.tracing import Tracing
from service.runs.executor import RunExecutor
from service.runs.preconditions import ThreadOwners
from service.runs.start import RunStart


def runs_on(
    pool: Pool, settings: RunSettings | None = None, workflows: WorkflowSettings | None = None
) -> RunExecutor:
    """Runs of one tenant; the limits are the defaults where none are given."""
    settings = settings or RunSettings()
    lanes = build_queues(settings, workflows or WorkflowSettings(), shared=False)
    audit = AuditTrail(pool)
    watch = RunObserver(ServiceMetrics(), Tracing(), audit)
    return RunExecutor(settings, lanes, RunStart(ThreadOwners(pool), audit), watch, database_away=str)
