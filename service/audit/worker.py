"""The background task of the audit room: write notes, link the chains, delete what has expired."""

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

# How soon an entry is linked.
LINK_SECONDS: Final = 1.0
# How soon an unavailable database is tried again.
RETRY_SECONDS: Final = 5.0
# Expired keys and entries may stay a little longer.
CLEANUP_SECONDS: Final = 600.0


@asynccontextmanager
async def maintain_audit(
    pool: Pool, trail: AuditTrail, keys: RequestKeys, settings: AuditSettings
) -> AsyncIterator[None]:
    """Maintain the audit trail while the context is open, and write the remaining notes at its end."""
    try:
        async with background(_maintain(pool, trail, keys, settings), "audit-worker"):
            yield
    finally:
        await _attempt(_write(pool, trail))


async def _maintain(pool: Pool, trail: AuditTrail, keys: RequestKeys, settings: AuditSettings) -> None:
    cleaned_at = time.monotonic()
    while True:
        succeeded = await _attempt(_write(pool, trail))
        await asyncio.sleep(LINK_SECONDS if succeeded else RETRY_SECONDS)
        if time.monotonic() - cleaned_at >= CLEANUP_SECONDS:
            cleaned_at = time.monotonic()
            await _attempt(clean_up(pool, keys, settings))


async def _write(pool: Pool, trail: AuditTrail) -> None:
    await trail.flush()
    await link_entries(pool)


async def clean_up(pool: Pool, keys: RequestKeys, settings: AuditSettings) -> None:
    """Delete expired request keys, and cut off old entries where the settings say so."""
    await keys.delete_expired()
    if settings.retention_days is not None and (
        removed := await cut_chains(pool, timedelta(days=settings.retention_days))
    ):
        log.info("audit_cut", entries=removed)


async def _attempt(work: Awaitable[None]) -> bool:
    """Do the work and return whether it succeeded; a failure is logged and retried later."""
    try:
        await work
    except postgres.AWAY as error:
        log.warning("audit_not_maintained", reason=str(error))
    except Exception:
        log.exception("audit_not_maintained")
    else:
        return True
    return False
