"""Commands on the service's database: ``python -m service.cli.database migrate|retention|verify-audit``.

``migrate`` brings an external database up to date before replicas start. A service does the same when it
starts; as a job of its own, replicas find nothing left to do and may use a role that cannot change schemas.

``retention`` applies the retention policies once. ``verify-audit`` verifies the hash chains of the audit
trail. Both also work beside a running service.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from rich.console import Console
from rich.table import Table

from checkpoints.embedded import embedded_postgres_server, running_postgres_url
from checkpoints.pool import open_pool
from checkpoints.retention import SweepResult
from checkpoints.saver import open_saver
from core.embeddings import build_embedder
from core.errors import ServiceError, StartupError
from core.logging import configure_logging, get_logger
from core.postgres import Pool
from core.settings import Settings
from memory.embedded import open_configured_memory
from service.audit.chain import ChainVerdict, verify_chains
from service.erasure import Erasure
from service.migrations import migrate_all, migrate_rooms
from service.retention import apply_retention
from service.version import VERSION

log = get_logger(__name__)

# Narrower, and columns would be cut off.
_TABLE_WIDTH = 110


@asynccontextmanager
async def open_service_database(settings: Settings) -> AsyncIterator[Pool]:
    """Open the database of the service on this machine, running or not, with its tables up to date.

    Raises:
        StartupError: The database cannot be started or reached.
    """
    async with AsyncExitStack() as stack:
        url = settings.database.url
        address = url.get_secret_value() if url else running_postgres_url(settings.server.data_dir)
        if address is None:
            address = await stack.enter_async_context(embedded_postgres_server(settings.server.data_dir))
        pool = await stack.enter_async_context(open_pool(address, settings.database))
        await migrate_rooms(pool)
        yield pool


async def migrate(settings: Settings) -> int:
    """Migrate the external database.

    Raises:
        StartupError: DATABASE_URL is not set, or the database cannot be reached.
    """
    if settings.database.url is None:
        raise StartupError(
            "DATABASE_URL is not set: name the database to migrate. The embedded one is migrated by the "
            "service that starts it"
        )
    async with open_pool(settings.database.url.get_secret_value(), settings.database) as pool:
        await migrate_all(pool, settings)
    log.info("database_up_to_date", version=VERSION)
    return 0


async def run_retention(settings: Settings, *, dry_run: bool) -> int:
    """Apply the retention policies once and print the result.

    Returns:
        0, or 1 where another replica was applying them.
    """
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_service_database(settings))
        saver = await stack.enter_async_context(open_saver(pool))
        embedder = build_embedder(settings, "retrieval")
        stack.push_async_callback(embedder.aclose)
        memory = await stack.enter_async_context(open_configured_memory(settings, pool, embedder))
        erasure = Erasure(pool=pool, memory=memory, settled=saver.flush)
        result = await apply_retention(settings, pool, erasure, dry_run=dry_run)
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(build_retention_table(result, dry_run=dry_run or settings.retention.dry_run))
    if not result.complete:
        console.print("Another replica is applying the policies at the moment: run this again later.")
    return 0 if result.complete else 1


def build_retention_table(result: SweepResult, *, dry_run: bool) -> Table:
    """Return what was removed, or would be, as a table for a terminal."""
    verb = "would be removed" if dry_run else "was removed"
    table = Table(title=f"Retention: what {verb} (spared: idle, but waiting for a person)")
    for column in ("graph", "policy"):
        table.add_column(column)
    for column in ("threads", "erased", "pruned", "spared", "checkpoints", "KB"):
        table.add_column(column, justify="right")
    for line in sorted(result.lines.values(), key=lambda line: line.graph):
        counts = (line.threads, line.erased, line.pruned, line.spared, line.checkpoints, line.bytes // 1024)
        table.add_row(line.graph or "(unknown)", line.policy, *(f"{count:,}" for count in counts))
    return table


async def verify_audit(settings: Settings) -> int:
    """Verify every tenant's audit chain and print the verdicts.

    Returns:
        0 when every chain is intact, 1 when one is broken.
    """
    async with open_service_database(settings) as pool:
        verdicts = [verdict async for verdict in verify_chains(pool)]
    for verdict in verdicts:
        sys.stdout.write(f"{describe_verdict(verdict)}\n")
    if not verdicts:
        sys.stdout.write("the audit trail has no entries yet\n")
    return 1 if any(verdict.fault for verdict in verdicts) else 0


def describe_verdict(verdict: ChainVerdict) -> str:
    """Return the verdict as one line."""
    counts = f"{verdict.entries} entries, {verdict.cut} cut before them, {verdict.unlinked} not linked yet"
    if verdict.fault:
        return f"BROKEN  {verdict.tenant}: {verdict.fault} ({counts})"
    return f"ok      {verdict.tenant}: {counts}; head {verdict.head.position} {verdict.head.hash.hex()}"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m service.cli.database", description="Commands on the service's database."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring the database of DATABASE_URL up to date")
    retention = commands.add_parser("retention", help="apply the retention policies (RETENTION_*) once")
    retention.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    commands.add_parser("verify-audit", help="verify the hash chain of every tenant's audit trail")
    return parser


async def _run_command(settings: Settings, arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "migrate":
            return await migrate(settings)
        case "retention":
            return await run_retention(settings, dry_run=arguments.dry_run)
        case _:
            return await verify_audit(settings)


def main() -> int:
    """Run the command.

    Returns:
        The exit code: 0 when it succeeded, 1 when it failed or the database cannot be reached.
    """
    arguments = build_parser().parse_args()
    try:
        settings = Settings.load()
        configure_logging(settings.log, stream=sys.stderr)
        return asyncio.run(_run_command(settings, arguments))
    except ServiceError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
