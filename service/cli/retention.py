"""Retention, in the background of the service and as a command.

``python -m service.cli.retention --dry-run`` prints what the policies would remove; without ``--dry-run`` it
removes it.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from checkpoints.pool import open_database
from checkpoints.retention import RetentionPolicies, SweepResult, sweep
from checkpoints.saver import open_saver
from core import postgres
from core.context import Actor, act_as
from core.errors import StartupError
from core.logging import configure_logging, get_logger
from core.postgres import Pool
from core.settings import Settings
from core.tasks import background
from service.migrations import migrate_rooms
from service.runs.erasure import Erasure
from service.runs.executor import Runs

log = get_logger(__name__)

# Pauses differ by this share, so that replicas that started together do not meet at each sweep.
_JITTER = 0.1


@asynccontextmanager
async def retention(settings: Settings, pool: Pool, erasure: Erasure, runs: Runs) -> AsyncIterator[None]:
    """Sweep in the background for as long as the context is open.

    The first sweep comes after one interval. A sweep that fails is logged and tried again at the next.
    """
    if RetentionPolicies.from_settings(settings.retention).keep_everything:
        yield
        return
    async with background(_sweeping(settings, pool, erasure, runs), "retention"):
        yield


async def _sweeping(settings: Settings, pool: Pool, erasure: Erasure, runs: Runs) -> None:
    interval = settings.retention.interval_seconds
    while True:
        await asyncio.sleep(interval * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret
        try:
            await swept(settings, pool, erasure, runs)
        except postgres.DATABASE_UNAVAILABLE as error:
            log.warning("retention_failed", reason=str(error))
        except Exception:
            log.exception("retention_failed")


async def swept(
    settings: Settings, pool: Pool, erasure: Erasure, runs: Runs | None = None, *, dry_run: bool = False
) -> SweepResult:
    """Sweep once and log what went, a line for each graph.

    Args:
        settings: The policies and the limits.
        pool: Connections.
        erasure: How a whole thread goes.
        runs: This process's runs, whose threads are left alone.
        dry_run: Change nothing, even where the settings would.
    """
    dry_run = dry_run or settings.retention.dry_run
    act_as(Actor(user="retention"))
    # A run that has just begun has written nothing yet: longer than one may last, to be sure.
    longest = max(settings.runs.timeout_seconds, settings.workflows.timeout_seconds)
    longest += settings.runs.drain_seconds
    found = await sweep(
        pool,
        RetentionPolicies.from_settings(settings.retention),
        erase=erasure.erase_in,
        grace=timedelta(seconds=max(settings.retention.grace_seconds, longest)),
        batch_size=settings.retention.batch_size,
        dry_run=dry_run,
        busy=runs.holds if runs else lambda _: False,
    )
    for line in found.lines.values():
        log.info("retention", dry_run=dry_run, **asdict(line))
    if not found.complete:
        log.info("retention_left_to_another_replica")
    return found


def table(found: SweepResult, *, dry_run: bool) -> Table:
    """What went, or would go, for a terminal."""
    verb = "would go" if dry_run else "went"
    drawn = Table(title=f"Retention: what {verb} (spared: idle, but waiting for a person)")
    for column in ("graph", "policy"):
        drawn.add_column(column)
    for column in ("threads", "erased", "pruned", "spared", "checkpoints", "KB"):
        drawn.add_column(column, justify="right")
    for line in sorted(found.lines.values(), key=lambda line: line.graph):
        counts = (line.threads, line.erased, line.pruned, line.spared, line.checkpoints, line.bytes // 1024)
        drawn.add_row(line.graph or "(unknown)", line.policy, *(f"{count:,}" for count in counts))
    return drawn


async def _command(*, dry_run: bool) -> int:
    settings = Settings.load()
    configure_logging(settings.log, stream=sys.stderr)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_database(settings.database, settings.server.data_dir))
        saver = await stack.enter_async_context(open_saver(pool))
        await migrate_rooms(pool)
        found = await swept(settings, pool, Erasure(pool=pool, settled=saver.flush), dry_run=dry_run)
    console = Console()
    # Cut off, a policy could not be told from another.
    console.width = max(console.width, 110)
    console.print(table(found, dry_run=dry_run or settings.retention.dry_run))
    if not found.complete:
        console.print("Another replica is sweeping at the moment: run this again later.")
    return 0 if found.complete else 1


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Carry the retention policies (RETENTION_*) out once.")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    given = parser.parse_args()
    try:
        return asyncio.run(_command(dry_run=given.dry_run))
    except StartupError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
