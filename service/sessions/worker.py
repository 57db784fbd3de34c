"""The background task that closes idle sessions and has closed sessions summarised."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from core import postgres
from core.errors import ServiceError
from core.logging import get_logger
from service.sessions.store import Session, SessionStore

log = get_logger(__name__)

CLOSE_BATCH: Final = 20
_JITTER: Final = 0.2

# Returns a session's summary, after memory has learnt what was said in it.
Summarise: TypeAlias = Callable[[Session], Awaitable[str]]


class SessionWorker:
    """Closes and summarises sessions.

    A closed session waits in its table for its summary, so a crash loses none.

    Args:
        store: The sessions.
        summarise: Summarises one session.
        seconds: Between two sweeps, give or take a fifth, so that services do not keep in step.
    """

    def __init__(self, store: SessionStore, summarise: Summarise, *, seconds: float) -> None:
        self._store = store
        self._summarise = summarise
        self._seconds = seconds

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._seconds * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
            try:
                await self.sweep()
            except postgres.AWAY as error:
                log.warning("sessions_not_swept", reason=str(error))

    async def sweep(self) -> int:
        """Close idle sessions and summarise closed ones, one at a time, until none is left.

        Returns:
            The number of sessions summarised. A session that fails is tried again when its lease is over.
        """
        while await self._store.close_idle(limit=CLOSE_BATCH) == CLOSE_BATCH:
            pass
        summarised = 0
        while session := await self._store.lease_unsummarised():
            summarised += await self._summarise_session(session)
        return summarised

    async def _summarise_session(self, session: Session) -> bool:
        try:
            summary = await self._summarise(session)
        except ServiceError as error:
            log.warning("session_not_summarised", session_id=session.id, reason=error.message)
            return False
        await self._store.save_summary(session, summary)
        return True
