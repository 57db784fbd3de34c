"""Close idle sessions, and have closed ones summarised by jobs."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from service.sessions.store import Session, SessionStore

CLOSE_BATCH: Final = 20
QUEUE_BATCH: Final = 500

# Returns a session's summary, after memory has learnt what was said in it.
Summarise: TypeAlias = Callable[[Session], Awaitable[str]]
# Queues a job for each session that has none, with the arguments of :meth:`SessionWorker.summarise` by the
# session's id, and returns how many had none.
QueueSummaries: TypeAlias = Callable[[Mapping[str, Mapping[str, str]]], Awaitable[int]]


class SessionWorker:
    """Closes and summarises sessions.

    A closed session waits in its table for its summary, so that none is lost with its job.

    Args:
        store: The sessions.
        summarise: Summarises one session.
        queue: Queues summaries.
    """

    def __init__(self, store: SessionStore, summarise: Summarise, queue: QueueSummaries) -> None:
        self._store = store
        self._summarise = summarise
        self._queue = queue

    async def sweep(self) -> int:
        """Close idle sessions, and queue summaries of closed ones.

        Returns:
            The number of summaries queued; none for a session whose job waits, runs or waits to be repeated.
        """
        while await self._store.close_idle(limit=CLOSE_BATCH) == CLOSE_BATCH:
            pass
        queued = 0
        async for page in self._store.list_unsummarised(limit=QUEUE_BATCH):
            queued += await self._queue(
                {session.id: {"tenant": session.tenant, "session_id": session.id} for session in page}
            )
        return queued

    async def summarise(self, *, tenant: str, session_id: str) -> None:
        """Summarise a closed session, unless it has a summary, was resumed or erased.

        Raises:
            ServiceError: A model failed, or memory is unavailable.
        """
        session = await self._store.get(tenant, session_id)
        if session and session.closed_at and session.summary is None:
            await self._store.save_summary(session, await self._summarise(session))
