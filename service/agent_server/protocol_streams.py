"""Streams of a thread's events for clients of the streaming protocol."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from service.agent_server.protocol_events import Event, ProtocolEvents
from service.agent_server.subscriptions import Subscription
from service.runs.log.run_log import NumberedPart
from service.runs.log.thread_followers import ThreadFollowers, ThreadPart

# How long a question waits before it is sent, so that what came before it has arrived over a client's other
# connections, and how long it waits for those at most.
_QUESTION_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.02


class _Reader:
    """A connection that reads a thread's events.

    Attributes:
        ended: The runs of which it has sent everything but how they ended.
    """

    def __init__(self) -> None:
        self.ended: set[str] = set()


class ProtocolStreams:
    """Reads threads for clients of the streaming protocol.

    Args:
        threads: Follows threads.
        is_stopping: Returns whether the service is about to stop.

    Attributes:
        threads: Follows threads.
    """

    def __init__(self, threads: ThreadFollowers, is_stopping: Callable[[], bool]) -> None:
        self.threads = threads
        self._is_stopping = is_stopping
        self._readers: dict[str, set[_Reader]] = {}

    async def read(self, tenant: str, thread_id: str, subscription: Subscription) -> AsyncIterator[Event]:
        """Yield the events of a thread that a client has subscribed to, over all its runs.

        The first one is an error ``resume_gap`` where events were lost that the client does not have.
        """
        since = subscription.since or 0
        if since and await self.threads.is_missing_events(tenant, thread_id, since):
            yield _build_gap(since)
        events, run_id = None, ""
        with self._register(thread_id) as reader:
            async for step in self.threads.follow(tenant, thread_id, since, is_stopping=self._is_stopping):
                if events is None or run_id != step.run.id:
                    events, run_id = ProtocolEvents(step.run.id, step.run.graph, subscription), step.run.id
                    if _begins_late(step.numbered, since):
                        yield _build_gap(since)
                if step.numbered:
                    for event in events.convert(step.numbered):
                        yield event
                else:
                    async for event in self._end(thread_id, reader, events, step):
                        yield event

    async def _end(
        self, thread_id: str, reader: _Reader, events: ProtocolEvents, step: ThreadPart
    ) -> AsyncIterator[Event]:
        reader.ended.add(step.run.id)
        if questions := list(events.list_questions()):
            # Clients stop reading everything else when they see a question.
            await self._let_others_catch_up(thread_id, step.run.id)
            for question in questions:
                yield question
        for event in events.end(step.row):
            yield event

    async def _let_others_catch_up(self, thread_id: str, run_id: str) -> None:
        await asyncio.sleep(_QUESTION_SECONDS)
        for _ in range(int(_PATIENCE_SECONDS / _LOOK_SECONDS)):
            if all(run_id in reader.ended for reader in self._readers[thread_id]):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    @contextmanager
    def _register(self, thread_id: str) -> Iterator[_Reader]:
        reader = _Reader()
        self._readers.setdefault(thread_id, set()).add(reader)
        try:
            yield reader
        finally:
            self._readers[thread_id].discard(reader)
            if not self._readers[thread_id]:
                del self._readers[thread_id]


def _begins_late(numbered: NumberedPart | None, since: int) -> bool:
    """Return whether the first parts of a run were dropped that a client does not have."""
    return bool(since and numbered and numbered.part["type"] != "attempt" and numbered.at > since)


def _build_gap(since: int) -> Event:
    return {
        "type": "error",
        "id": None,
        "error": "resume_gap",
        "message": f"events after seq {since} are kept no more: read the thread's state, and go on from here",
    }
