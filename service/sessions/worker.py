"""The background task that closes idle sessions and has closed sessions summarised."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from core.errors import ServiceError
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from core.tasks import periodic
from service.sessions.store import Session, SessionStore

log = get_logger(__name__)

CLOSE_BATCH: Final = 20

# Returns a session's summary, after memory has learnt what was said in it.
Summarise: TypeAlias = Callable[[Session], Awaitable[str]]


class SessionWorker:
    """Closes and summarises sessions.

    A closed session waits in its table for its summary, so a crash loses none.

    Args:
        store: The sessions.
        summarise: Summarises one session.
        seconds: Between two sweeps.
    """

    def __init__(self, store: SessionStore, summarise: Summarise, *, seconds: float) -> None:
        self._store = store
        self._summarise = summarise
        self._seconds = seconds

    async def run(self) -> None:
        """Sweep until cancelled."""
        await periodic("session-worker", self.sweep, seconds=self._seconds)

    async def sweep(self) -> int:
        """Close idle sessions, and summarise closed ones until none is left.

        Each session is leased when its turn comes, so that no lease expires while others are summarised.

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
            await self._store.save_summary(session, summary)
        except ServiceError as error:
            log.warning("session_not_summarised", session_id=session.id, reason=error.message)
            return False
        except DATABASE_UNAVAILABLE:
            raise
        except Exception:  # a session that cannot be summarised must not keep the others from it
            log.exception("session_not_summarised", session_id=session.id)
            return False
        return True
