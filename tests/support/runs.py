"""A run executor without a service around it."""

from uuid import uuid4

from core.postgres import Pool
from core.settings import RunSettings, WorkflowSettings
from service.audit.trail import AuditTrail
from service.conversations.announcements import describe_end
from service.observability.metrics import ServiceMetrics
from service.observability.tracing import Tracing
from service.runs.claims import RunClaims
from service.runs.executor import RunExecutor
from service.runs.limits import build_queues
from service.runs.log.followers import RunFollowers
from service.runs.log.part_exchange import PartExchange
from service.runs.observers import RunObserver
from service.runs.store import RunStore


def build_executor(
    pool: Pool,
    settings: RunSettings | None = None,
    workflows: WorkflowSettings | None = None,
    *,
    metrics: ServiceMetrics | None = None,
    shared: bool = False,
) -> RunExecutor:
    """Return an executor of one tenant, or shared by several; settings not given are the defaults."""
    settings = settings or RunSettings()
    queues = build_queues(settings, workflows or WorkflowSettings(), shared=shared)
    audit = AuditTrail(pool)
    store = RunStore(pool, replica=str(uuid4()), claim_seconds=settings.claim_seconds)
    metrics = metrics or ServiceMetrics()
    observer = RunObserver(metrics, Tracing(), audit)
    return RunExecutor(
        settings,
        queues,
        claims=RunClaims(store, metrics),
        followers=RunFollowers(store, PartExchange(store)),
        audit=audit,
        observer=observer,
        database_unavailable=str,
        settle=_settle_nothing,
        describe_end=describe_end,
    )


async def _settle_nothing(_: str) -> None:
    """Wait for nothing: these runs' graphs have savers of their own tests."""
