"""Runs without a service around them."""

from api.ownership import Ownership
from api.run_lanes import run_lanes
from api.run_start import RunStart
from api.run_watch import RunWatch
from api.runs import Runs
from api.telemetry.metrics import ServiceMetrics
from api.telemetry.tracing import Tracing
from core.postgres import Pool
from core.settings import RunSettings, WorkflowSettings
from ledger.entries import Audit


def runs_on(
    pool: Pool, settings: RunSettings | None = None, workflows: WorkflowSettings | None = None
) -> Runs:
    """Runs of one tenant; the limits are the defaults where none are given."""
    settings = settings or RunSettings()
    lanes = run_lanes(settings, workflows or WorkflowSettings(), shared=False)
    audit = Audit(pool)
    watch = RunWatch(ServiceMetrics(), Tracing(), audit)
    return Runs(settings, lanes, RunStart(Ownership(pool), audit), watch, database_away=str)
