"""``python -m service.cli.audit verify``: whether the audit is as it was written."""

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack

from checkpoints.pool import open_database
from core.errors import StartupError
from core.logging import configure_logging
from core.settings import Settings
from service.audit.chain import ChainVerdict, verify_chains
from service.audit.migrations import migrate


def described(verdict: ChainVerdict) -> str:
    """The verdict in a line."""
    counts = f"{verdict.entries} entries, {verdict.cut} cut before them, {verdict.unlinked} not linked yet"
    if verdict.fault:
        return f"BROKEN  {verdict.tenant}: {verdict.fault} ({counts})"
    return f"ok      {verdict.tenant}: {counts}; head {verdict.head.position} {verdict.head.hash.hex()}"


async def _command() -> int:
    settings = Settings.load()
    configure_logging(settings.log, stream=sys.stderr)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_database(settings.database, settings.server.data_dir))
        await migrate(pool)
        verdicts = [verdict async for verdict in verify_chains(pool)]
    for verdict in verdicts:
        sys.stdout.write(f"{described(verdict)}\n")
    if not verdicts:
        sys.stdout.write("the audit has no entry yet\n")
    return 1 if any(verdict.fault for verdict in verdicts) else 0


def main() -> int:
    """The command.

    Returns:
        The exit code: 0 when every chain is whole, 1 when one is broken or the database cannot be reached.
    """
    parser = argparse.ArgumentParser(description="Look into the audit.")
    parser.add_argument("what", choices=["verify"], help="verify: follow every tenant's chain of hashes")
    parser.parse_args()
    try:
        return asyncio.run(_command())
    except StartupError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
