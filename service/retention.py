"""Apply the retention policies: in the background of the service, and for ``make retention``."""

from dataclasses import asdict
from datetime import timedelta
from functools import partial

from checkpoints.retention import RetentionPolicies, SweepResult, sweep
from core.context import Actor, act_as
from core.logging import get_logger
from core.postgres import Connection, Pool
from core.settings import Settings
from core.tasks import Scheduler
from service.auth.principal import LOCAL
from service.erasure import Erasure
from service.runs.threads import load_thread_owner

log = get_logger(__name__)


def schedule_retention(scheduler: Scheduler, settings: Settings, pool: Pool, erasure: Erasure) -> None:
    """Have the policies applied at each interval, if there are any."""
    if RetentionPolicies.from_settings(settings.retention).keep_everything:
        return
    run_pass = partial(apply_retention, settings, pool, erasure)
    scheduler.every("retention", run_pass, seconds=settings.retention.interval_seconds)


async def apply_retention(
    settings: Settings,
    pool: Pool,
    erasure: Erasure,
    *,
    dry_run: bool = False,
) -> SweepResult:
    """Apply the policies once and log the result, one line for each graph.

    Args:
        settings: The policies and the limits.
        pool: Connections.
        erasure: Erases whole threads.
        dry_run: Change nothing, even where the settings would.
    """
    dry_run = dry_run or settings.retention.dry_run
    act_as(Actor(user="retention"))
    # A run that has just begun has written nothing yet: leave threads alone for longer than a run may last.
    longest_run = max(settings.runs.timeout_seconds, settings.workflows.timeout_seconds)
    grace = max(settings.retention.grace_seconds, longest_run + settings.runs.drain_seconds)
    result = await sweep(
        pool,
        RetentionPolicies.from_settings(settings.retention),
        erase=partial(_erase_thread, erasure),
        grace=timedelta(seconds=grace),
        batch_size=settings.retention.batch_size,
        dry_run=dry_run,
    )
    for line in result.lines.values():
        log.info("retention", dry_run=dry_run, **asdict(line))
    if not result.complete:
        log.info("retention_left_to_another_replica")
    return result


async def _erase_thread(erasure: Erasure, connection: Connection, thread_id: str) -> None:
    """Erase a thread and what memory holds of it.

    Memory may be another service, so the erasure has a transaction of its own: if memory is unavailable, the
    thread stays until the next time.
    """
    owner = await load_thread_owner(connection, thread_id)
    tenant = owner.tenant if owner else LOCAL.tenant
    await erasure.erase(thread_id, tenant=tenant)
