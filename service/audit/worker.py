"""The periodic tasks of the audit: write notes, link the chains, delete what has expired."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from core.logging import get_logger
from core.postgres import Pool
from core.settings import AuditSettings
from core.tasks import Backoff, Scheduler, Supervisor, periodic
from service.audit.chain import cut_chains, link_entries
from service.audit.idempotency import RequestKeys
from service.audit.trail import AuditTrail

log = get_logger(__name__)

# How soon a note is written, by the process that took it.
WRITE_SECONDS: Final = 1.0
# How soon an entry is linked, by any replica.
LINK_SECONDS: Final = 5.0
# How soon an unavailable database is tried again.
RETRY: Final = Backoff(first=5, longest=5)
# Expired keys and entries may stay a little longer.
CLEANUP_SECONDS: Final = 600.0


@asynccontextmanager
async def maintain_audit(
    tasks: Supervisor,
    scheduler: Scheduler,
    pool: Pool,
    *,
    trail: AuditTrail,
    keys: RequestKeys,
    settings: AuditSettings,
) -> AsyncIterator[None]:
    """Maintain the audit trail while the context is open, and write the remaining notes at its end."""
    scheduler.every("audit-link", partial(link_entries, pool), seconds=LINK_SECONDS)
    scheduler.every("audit-cleanup", partial(delete_expired, pool, keys, settings), seconds=CLEANUP_SECONDS)
    write = partial(periodic, "audit-writer", trail.flush, seconds=WRITE_SECONDS, backoff=RETRY)
    try:
        async with tasks.supervise("audit-writer", write):
            yield
    finally:
        try:
            await trail.flush()
        except Exception:  # the rest of the service must still be closed
            log.exception("audit_notes_not_written")


async def delete_expired(pool: Pool, keys: RequestKeys, settings: AuditSettings) -> None:
    """Delete expired request keys, and cut off old audit entries where the settings say so."""
    await keys.delete_expired()
    if settings.retention_days is not None and (
        removed := await cut_chains(pool, timedelta(days=settings.retention_days))
    ):
        log.info("audit_cut", entries=removed)
