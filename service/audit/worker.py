"""The background task of the ledger: writes the audit's notes, links its chains, forgets what is over."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from core import postgres
from core.logging import get_logger
from core.postgres import Pool
from core.settings import AuditSettings
from core.tasks import background
from service.audit.chain import cut_chains, link_entries
from service.audit.idempotency import RequestKeys
from service.audit.trail import AuditTrail

log = get_logger(__name__)

# How soon an entry has its place in the chain.
LINK_SECONDS: Final = 1.0
# How soon a database that was away is tried again.
AWAY_SECONDS: Final = 5.0
# Keys and entries whose time is over may stay a little longer.
SWEEP_SECONDS: Final = 600.0


@asynccontextmanager
async def keeping(
    pool: Pool, audit: AuditTrail, requests: RequestKeys, settings: AuditSettings
) -> AsyncIterator[None]:
    """Keep the ledger for as long as the context is open, and leave nothing unwritten at its end."""
    try:
        async with background(_keep(pool, audit, requests, settings), "ledger-keeper"):
            yield
    finally:
        await _tried(_written(pool, audit))


async def _keep(pool: Pool, audit: AuditTrail, requests: RequestKeys, settings: AuditSettings) -> None:
    swept = time.monotonic()
    while True:
        well = await _tried(_written(pool, audit))
        await asyncio.sleep(LINK_SECONDS if well else AWAY_SECONDS)
        if time.monotonic() - swept >= SWEEP_SECONDS:
            swept = time.monotonic()
            await _tried(sweep(pool, requests, settings))


async def _written(pool: Pool, audit: AuditTrail) -> None:
    await audit.flush()
    await link_entries(pool)


async def sweep(pool: Pool, requests: RequestKeys, settings: AuditSettings) -> None:
    """Forget keys whose time is over, and cut old entries off the audit where the settings say so."""
    await requests.sweep()
    if settings.retention_days is not None and (
        went := await cut_chains(pool, timedelta(days=settings.retention_days))
    ):
        log.info("audit_cut", entries=went)


async def _tried(work: Awaitable[None]) -> bool:
    """Do it and say whether that went well; what fails is logged, and left for the next time."""
    try:
        await work
    except postgres.DATABASE_UNAVAILABLE as error:
        log.warning("ledger_not_kept", reason=str(error))
    except Exception:
        log.exception("ledger_not_kept")
    else:
        return True
    return False
